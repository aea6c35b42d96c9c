/**
 * A worker as an operating system process: spawned into a group of its own, ended with all that it started.
 *
 * The child gets a *lifeline* as descriptor 3: one end of a socket pair whose other end only this server holds. The
 * worker asks the kernel to kill its group when that end closes, so a server that dies takes its workers with it, even
 * those whose native code never returns. Knows nothing of frames.
 */
import { closeSync } from "node:fs";
import { join } from "node:path";
import { AirlockError } from "../../transport/errors.ts";
import type { Libc } from "../../transport/libc.ts";
import type { ProcessExit } from "./exit.ts";
import type { LogFile } from "./log-file.ts";

/** The script that a worker's interpreter starts with. */
const bootScript = join(import.meta.dir, "..", "..", "..", "worker", "src", "comfy_airlock", "runtime", "boot.py");

export interface WorkerCommand {
  /** The interpreter of the pack's environment. */
  readonly python: string;
  readonly packFolder: string;
  readonly log: LogFile;
  /** The worker's whole environment. */
  readonly variables: Readonly<Record<string, string>>;
}

export interface WorkerProcess {
  readonly pid: number;
  /** Settles when the process has ended and was reaped. */
  readonly exited: Promise<ProcessExit>;
  /** Sends SIGKILL to the process and to all in its group. Does nothing once it was reaped: its number may be another's. */
  kill(): void;
}

export type SpawnWorker = (command: WorkerCommand) => WorkerProcess;

/** Spawns with `Bun.spawn`, which must happen on the main thread. */
export function workerSpawner(libc: Libc): SpawnWorker {
  return (command) => {
    const log = openLog(command.log);
    const [near, far] = libc.socketPair();
    try {
      return spawnGroup(command, log, near, far, libc);
    } catch (error) {
      libc.close(near);
      throw new AirlockError("worker_start_failed", `${command.python} could not be started: ${String(error)}`);
    } finally {
      libc.close(far);
      closeSync(log);
    }
  };
}

function openLog(log: LogFile): number {
  try {
    return log.open();
  } catch (error) {
    throw new AirlockError("worker_start_failed", `the log ${log.path} could not be opened: ${String(error)}`);
  }
}

function spawnGroup(command: WorkerCommand, log: number, near: number, far: number, libc: Libc): WorkerProcess {
  const child = Bun.spawn([command.python, bootScript], {
    cwd: command.packFolder,
    env: { ...command.variables },
    stdio: ["ignore", log, log, far],
    // A session, and with it a process group, of its own: terminal signals are the server's to handle.
    detached: true,
  });
  // A core file is as large as the memory of the process, and would lie in the pack's folder.
  libc.forbidCoreFiles(child.pid);
  let reaped = false;
  const kill = (): void => {
    if (reaped) return;
    try {
      process.kill(-child.pid, "SIGKILL");
    } catch {
      // ESRCH: the group is gone already.
    }
  };
  const exited = child.exited.then((): ProcessExit => {
    // What the worker forked must not outlive it; while any of that lives, the group's number is not given out again.
    kill();
    reaped = true;
    libc.close(near);
    return { code: child.exitCode, signal: child.signalCode === null ? null : String(child.signalCode) };
  });
  return { pid: child.pid, exited, kill };
}
