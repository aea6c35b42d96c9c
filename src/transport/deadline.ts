/**
 * What a caller is told whose call took too long: the same words, whoever looked at the clock. Pure.
 *
 * Twin of `worker/src/comfy_airlock/calls/deadline.py`.
 */
import type { CallTimeout } from "./control.ts";
import { AirlockError } from "./errors.ts";

export interface Overdue {
  /** The pack that was called; missing where it was somebody else. */
  readonly pack: string | undefined;
  /** The time that the call was given. */
  readonly deadlineMs: number;
  /** The pack's own limit, where the call ran into that. */
  readonly callTimeout: CallTimeout | undefined;
  readonly graceMs: number;
}

export function deadlineExceeded({ pack, deadlineMs, callTimeout, graceMs }: Overdue): AirlockError {
  const whose = pack === undefined ? "the call" : `pack ${pack}: the call`;
  const what =
    callTimeout === undefined
      ? `its deadline of ${deadlineMs} ms`
      : `the pack's limit of ${callTimeout.ms} ms (${callTimeout.source})`;
  const message = `${whose} took longer than ${what}`;
  if (pack === undefined) return new AirlockError("deadline_exceeded", message);
  const more = callTimeout === undefined ? "give it more time" : `raise ${callTimeout.source}`;
  const hint = `${more}; a worker that goes on for ${graceMs / 1000} s more is ended`;
  return new AirlockError("deadline_exceeded", message, { pack, hint });
}

/** The pack's limit, where that leaves a call less time than its caller does. */
export function bindingTimeout(
  deadlineMs: number | undefined,
  callTimeout: CallTimeout | undefined,
): CallTimeout | undefined {
  return deadlineMs === undefined || (callTimeout !== undefined && callTimeout.ms < deadlineMs)
    ? callTimeout
    : undefined;
}
