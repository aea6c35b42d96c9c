/** What benchmarks ask of other processes: to run to their end, to listen until told otherwise, whether they still live. */
import { readFileSync } from "node:fs";
import { dirname } from "node:path";

export const root = dirname(import.meta.dir);

/** What one command may take. */
const secondsMax = 600;
/** So much of what a command that fails has written to standard error is told. */
const errorLinesMax = 12;

/**
 * Runs a command to its end, in a process group of its own: where it takes too long, all that it started ends with it.
 *
 * @param env variables besides this process's own; undefined removes one.
 * @returns what it printed.
 * @throws Error where it fails, with the end of what it wrote to standard error.
 */
export async function outputOf(
  command: readonly string[],
  env: Readonly<Record<string, string | undefined>> = {},
): Promise<string> {
  const child = Bun.spawn([...command], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    endGroup(child.pid);
  }, secondsMax * 1000);
  running.add(child.pid);
  try {
    const [said, errors] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
    if ((await child.exited) === 0) return said;
    const why = isLate
      ? `took longer than ${secondsMax} s`
      : `failed with ${child.signalCode ?? `exit code ${child.exitCode}`}`;
    throw new Error(`${command.join(" ")} ${why}\n${errors.trimEnd().split("\n").slice(-errorLinesMax).join("\n")}`);
  } finally {
    running.delete(child.pid);
    clearTimeout(timer);
  }
}

/** The commands under way. */
const running = new Set<number>();

/** Ends the commands under way, and what they started: they don't hear Ctrl-C, as their groups are their own. */
export function endRunning(): void {
  for (const pid of running) endGroup(pid);
}

function endGroup(leader: number): void {
  try {
    process.kill(-leader, "SIGKILL");
  } catch {
    // It has just ended.
  }
}

/** Where processes run, as what goes before their command. */
export const placements = { free: [], "one core": ["taskset", "--cpu-list", "0"] } as const;
export type Placement = keyof typeof placements;

/**
 * Starts a script with this Bun, which listens until its standard input ends, and waits for the first line that it
 * prints: that it listens.
 *
 * @param profiles folder for its CPU profile; none is taken where it is missing.
 * @param placement where it and what it starts run.
 * @throws Error where it ends before that.
 */
export async function startListener(
  command: readonly string[],
  profiles: string | undefined,
  placement: Placement = "free",
): Promise<AsyncDisposable> {
  const profiling = profiles === undefined ? [] : ["--cpu-prof", "--cpu-prof-md", "--cpu-prof-dir", profiles];
  const child = Bun.spawn([...placements[placement], process.execPath, ...profiling, ...command], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const { done } = await child.stdout.getReader().read();
  if (done) throw new Error(`${command.join(" ")} ended before it listened: exit code ${await child.exited}`);
  return {
    [Symbol.asyncDispose]: async () => {
      await child.stdin.end();
      await child.exited;
    },
  };
}

/** Whether a process runs; a zombie doesn't. */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}
