/**
 * A worker as an operating system process: in a group of its own, ended with all that it started.
 *
 * The child gets a *lifeline* as descriptor 3: one end of a socket pair whose other end only this server holds. The
 * worker asks the kernel to kill its group when that end closes, so a server that dies takes its workers with it, even
 * those whose native code never returns. Descriptors 1 and 2 are a pipe into the log, 4 is one for its Python stacks.
 * Knows nothing of frames.
 */
import { join } from "node:path";
import type { Clock } from "../../transport/clock.ts";
import { AirlockError } from "../../transport/errors.ts";
import type { Libc } from "../../transport/libc.ts";
import type { Child, Ends } from "./child.ts";
import { crashStack } from "./crash-stack.ts";
import type { Killer, ProcessExit } from "./exit.ts";
import type { ForkServers } from "./fork-servers.ts";
import type { CountMemoryKills } from "./memory-kills.ts";
import type { Pace } from "./pace.ts";
import { StackPipe } from "./stack-pipe.ts";
import type { WorkerLog } from "./worker-log.ts";
import type { WorkerOutput } from "./worker-output.ts";

/** The script that a worker's interpreter starts with. */
const bootScript = join(import.meta.dir, "..", "..", "..", "worker", "src", "comfy_airlock", "runtime", "boot.py");

export interface WorkerCommand {
  /** The interpreter of the pack's environment. */
  readonly python: string;
  readonly packFolder: string;
  readonly log: WorkerLog;
  /** The worker's whole environment. */
  readonly variables: Readonly<Record<string, string>>;
  /** Whether it is to be forked from a process that has the torch which it shares. */
  readonly mayFork: boolean;
  /** Called with the reason where it is, and could not be. */
  readonly onNotForked: (reason: string) => void;
}

export interface WorkerProcess {
  readonly pid: number;
  /** Settles when the process has ended and was reaped, and what it wrote is in its log. */
  readonly exited: Promise<ProcessExit>;
  /** The Python stack that it left when it crashed, if it did; complete once it has exited. */
  readonly crashStack: string | undefined;
  /** Prints the Python stacks of its threads; throws where it doesn't answer. */
  dumpStacks(): Promise<string>;
  /** Sends SIGKILL to the process and to all in its group. Does nothing once it was reaped: its number may be another's. */
  kill(): void;
}

/** @throws AirlockError `worker_start_failed` where no process could be started. */
export type SpawnWorker = (command: WorkerCommand) => Promise<WorkerProcess>;

export interface SpawnServices {
  readonly libc: Libc;
  readonly clock: Clock;
  readonly pace: Pace;
  readonly countMemoryKills: CountMemoryKills;
  readonly forkServers: ForkServers;
}

/** Forks where it can, and else spawns with `Bun.spawn`, which must happen on the main thread. */
export function workerSpawner(services: SpawnServices): SpawnWorker {
  const { libc } = services;
  return async (command) => {
    const output = openLog(command.log);
    try {
      const forked = command.mayFork ? await withEnds(libc, (ends) => forkedChild(command, ends, services)) : undefined;
      if (forked?.child !== undefined) return supervised(forked.child, forked.ends, output, services);
      const { child, ends } = await withEnds(libc, async (ends) => spawnedChild(command, ends));
      return supervised(child, ends, output, services);
    } catch (error) {
      void output.end();
      throw new AirlockError("worker_start_failed", `${command.python} could not be started: ${String(error)}`);
    }
  };
}

function openLog(log: WorkerLog): WorkerOutput {
  try {
    return log.open();
  } catch (error) {
    throw new AirlockError("worker_start_failed", `the log ${log.path} could not be opened: ${String(error)}`);
  }
}

/**
 * Has a child made, with ends of its own; those that stay are closed where none was made. One that came to nothing may have
 * left a process with its ends, so another gets others.
 */
async function withEnds<Made extends Child | undefined>(
  libc: Libc,
  make: (ends: Ends) => Promise<Made>,
): Promise<{ readonly child: Made; readonly ends: Ends }> {
  const pairs: (readonly [number, number])[] = [];
  const opened = (pair: readonly [number, number]) => {
    pairs.push(pair);
    return pair;
  };
  let child: Made | undefined;
  try {
    const ends = { output: opened(libc.pipe()), lifeline: opened(libc.socketPair()), stacks: opened(libc.pipe()) };
    child = await make(ends);
    return { child, ends };
  } finally {
    for (const [near, far] of pairs) {
      if (child === undefined) libc.close(near);
      libc.close(far);
    }
  }
}

/** Undefined where it has to be spawned. */
async function forkedChild(command: WorkerCommand, ends: Ends, services: SpawnServices): Promise<Child | undefined> {
  const { python, packFolder: folder, variables } = command;
  const forked = await services.forkServers.fork({ python, folder, variables }, ends);
  if ("pid" in forked) return forked;
  command.onNotForked(forked.refused);
  return undefined;
}

function spawnedChild(command: WorkerCommand, ends: Ends): Child {
  const child = Bun.spawn([command.python, bootScript], {
    cwd: command.packFolder,
    env: { ...command.variables },
    stdio: ["ignore", ends.output[1], ends.output[1], ends.lifeline[1], ends.stacks[1]],
    // A session, and with it a process group, of its own: terminal signals are the server's to handle.
    detached: true,
  });
  const ended = child.exited.then(() => {
    return { code: child.exitCode, signal: child.signalCode === null ? null : String(child.signalCode) };
  });
  return { pid: child.pid, ended, release: () => Promise.resolve() };
}

function supervised(child: Child, ends: Ends, output: WorkerOutput, services: SpawnServices): WorkerProcess {
  const { libc, clock, pace, countMemoryKills } = services;
  // A core file is as large as the memory of the process, and would lie in the pack's folder.
  libc.forbidCoreFiles(child.pid);
  const killsBefore = countMemoryKills();
  const stacks = new StackPipe({ descriptor: ends.stacks[0], pid: child.pid, clock, pace });
  output.follow(ends.output[0], child.pid);
  let reaped = false;
  let isKilled = false;
  const kill = (): void => {
    if (reaped) return;
    isKilled = true;
    try {
      process.kill(-child.pid, "SIGKILL");
    } catch {
      // ESRCH: the group is gone already.
    }
  };
  const exited = child.ended.then(async (end): Promise<ProcessExit> => {
    const killer = isKilled ? "server" : killerOf(killsBefore, countMemoryKills());
    // What the worker forked must not outlive it; while any of that lives, the group's number is not given out again.
    kill();
    reaped = true;
    const released = child.release();
    libc.close(ends.lifeline[0]);
    await stacks.end();
    await output.end(stacks.crash);
    await released;
    return { ...end, killer };
  });
  return {
    pid: child.pid,
    exited,
    kill,
    dumpStacks: () => stacks.dump(),
    get crashStack() {
      return stacks.crash === undefined ? undefined : crashStack(stacks.crash);
    },
  };
}

/** Whose doing a SIGKILL was that the server did not send. */
function killerOf(before: number | undefined, after: number | undefined): Killer | undefined {
  if (before === undefined || after === undefined) return undefined;
  return after > before ? "memory" : "somebody";
}
