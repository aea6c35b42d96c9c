/**
 * Runs a helper program to its end: the one place of this folder that spawns.
 *
 * Invariant: the program runs in a process group of its own, which is gone when the promise settles after an abort or a
 * time-out; its output is read as it comes and only a bounded end of it is kept. What a failure means is the caller's.
 */

import type { Clock } from "../../transport/clock.ts";
import { AirlockError } from "../../transport/errors.ts";
import { Tail } from "../tail.ts";
import { throwIfAborted } from "./cancellation.ts";

export interface CommandOptions {
  readonly env: Record<string, string | undefined>;
  readonly cwd?: string | undefined;
  /** Called with each line of standard error, without its end. */
  readonly onLine?: ((line: string) => void) | undefined;
  /** Kills the program's process group. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds until the group is killed; no limit if absent. */
  readonly timeoutMs?: number | undefined;
  readonly clock: Clock;
}

export interface CommandResult {
  /** Null if a signal ended it. */
  readonly exitCode: number | null;
  /** e.g. `exit code 2`, `killed by SIGKILL`, `timed out after 20 s`. */
  readonly ending: string;
  /** The last 64 Ki characters of each. */
  readonly stdout: string;
  readonly stderr: string;
}

const outputCharsMax = 64 * 1024;

/** Milliseconds that output is still awaited once the program has ended: a grandchild may hold the pipe open. */
const outputGraceMs = 2000;

/**
 * Runs `command` and waits until it has ended, however it ends.
 *
 * @throws AirlockError `cancelled` if `signal` aborts; `environment_failed` if the program cannot be started
 */
export async function runCommand(command: readonly string[], options: CommandOptions): Promise<CommandResult> {
  const { env, cwd, signal, timeoutMs, clock } = options;
  throwIfAborted(signal);
  const child = spawn(command, env, cwd);
  const stdout = new Tail(outputCharsMax);
  const stderr = new Tail(outputCharsMax, options.onLine);
  let timedOut = false;
  const kill = () => killGroup(child.pid);
  const timer =
    timeoutMs === undefined
      ? undefined
      : clock.after(timeoutMs, () => {
          timedOut = true;
          kill();
        });
  signal?.addEventListener("abort", kill, { once: true });
  try {
    const readers = [pump(child.stdout, stdout), pump(child.stderr, stderr)];
    await child.exited;
    await settleWithin(Promise.all(readers.map(({ done }) => done)), outputGraceMs, clock);
    for (const reader of readers) reader.cancel();
  } finally {
    timer?.cancel();
    signal?.removeEventListener("abort", kill);
  }
  throwIfAborted(signal);
  const ending = timedOut
    ? `timed out after ${(timeoutMs ?? 0) / 1000} s`
    : child.signalCode !== null
      ? `killed by ${child.signalCode}`
      : `exit code ${child.exitCode}`;
  const exitCode = timedOut || child.signalCode !== null ? null : child.exitCode;
  return { exitCode, ending, stdout: stdout.text(), stderr: stderr.text() };
}

function spawn(command: readonly string[], env: Record<string, string | undefined>, cwd: string | undefined) {
  try {
    return Bun.spawn([...command], {
      env,
      ...(cwd !== undefined && { cwd }),
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      // A group of its own: uv starts build back ends and compilers, and an abort must end them too.
      detached: true,
    });
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new AirlockError("environment_failed", `${command[0]} cannot be started: ${reason}`, {}, { cause: thrown });
  }
}

/** Kills at once: whatever was being made is thrown away whole, and uv's cache is written by rename. */
function killGroup(group: number): void {
  try {
    process.kill(-group, "SIGKILL");
  } catch (thrown) {
    // It ended by itself a moment ago, which is all that was wanted.
    if ((thrown as NodeJS.ErrnoException).code !== "ESRCH") throw thrown;
  }
}

function pump(stream: ReadableStream<Uint8Array>, tail: Tail): { done: Promise<void>; cancel(): void } {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  const read = async () => {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      tail.write(decoder.decode(value, { stream: true }));
    }
    tail.end();
  };
  // A pipe that breaks has told all that it will.
  const done = read().catch(() => undefined);
  return { done, cancel: () => void reader.cancel().catch(() => undefined) };
}

async function settleWithin(promise: Promise<unknown>, limitMs: number, clock: Clock): Promise<void> {
  const { promise: limit, resolve } = Promise.withResolvers<void>();
  const timer = clock.after(limitMs, resolve);
  await Promise.race([promise, limit]);
  timer.cancel();
}
