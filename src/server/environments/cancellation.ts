/** How an AbortSignal becomes the error `cancelled`. */
import { AirlockError } from "../../transport/errors.ts";

/** @throws AirlockError `cancelled` if the signal has aborted */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelled();
}

/** The promise's outcome, or the error `cancelled` as soon as the signal aborts; what the promise does goes on. */
export async function untilAborted<Value>(promise: Promise<Value>, signal: AbortSignal | undefined): Promise<Value> {
  if (signal === undefined) return await promise;
  throwIfAborted(signal);
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(cancelled());
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function cancelled(): AirlockError {
  return new AirlockError("cancelled", "the making of an environment was cancelled");
}
