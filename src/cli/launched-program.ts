/**
 * A program that is run for its user: signals go on to it, its end is this process's, and this process's end is its.
 *
 * It has a session, and so a process group, of its own: Ctrl-C reaches it once, from here, rather than from the terminal as
 * well. It holds a *lifeline*, one end of a socket pair whose other end is here alone: when this process ends, however it
 * ends, the kernel kills the group.
 */
import { constants } from "node:os";
import type { Libc } from "../transport/libc.ts";

/** What a user, a terminal or a supervisor sends to a program. */
const forwarded = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH"] as const;

/** Signals of this process: those that came before there is somebody to forward them to, and who that is. */
export interface ForwardedSignals {
  /** Sends to a process group what came and what comes. */
  sendTo(group: number): void;
  end(): void;
}

/** Begins to take signals, which end this process no more. */
export function forwardSignals(): ForwardedSignals {
  const waiting: NodeJS.Signals[] = [];
  let group: number | undefined;
  const take = (signal: NodeJS.Signals): void => {
    if (group === undefined) waiting.push(signal);
    else signalGroup(group, signal);
  };
  for (const signal of forwarded) process.on(signal, take);
  return {
    sendTo(to) {
      group = to;
      for (const signal of waiting.splice(0)) signalGroup(to, signal);
    },
    end() {
      for (const signal of forwarded) process.off(signal, take);
    },
  };
}

function signalGroup(group: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-group, signal);
  } catch {
    // ESRCH: it has ended.
  }
}

export interface ProgramOptions {
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly signals: ForwardedSignals;
  readonly libc: Libc;
}

/** As shells have it, where a program is not found, or may not be run. */
const notFound = 127;
const notRunnable = 126;

/** Runs a program to its end; returns its exit code, as a shell would. */
export async function runProgram({ command, env, signals, libc }: ProgramOptions): Promise<number> {
  const [near, far] = libc.socketPair();
  try {
    const child = Bun.spawn([...command], {
      env: { ...env },
      stdio: ["inherit", "inherit", "inherit", far],
      detached: true,
    });
    libc.killOnHangUp(far, child.pid);
    libc.close(far);
    signals.sendTo(child.pid);
    await child.exited;
    const signal = child.signalCode;
    return child.exitCode ?? 128 + (signal === null ? 0 : constants.signals[signal as keyof typeof constants.signals]);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== "ENOENT" && code !== "EACCES") throw error;
    console.error(`airlock launch: ${command[0]} ${code === "ENOENT" ? "was not found" : "is not a program"}`);
    return code === "ENOENT" ? notFound : notRunnable;
  } finally {
    signals.end();
    libc.close(near);
  }
}
