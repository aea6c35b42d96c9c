/** What benchmarks ask of other processes: to run to their end, to listen until told otherwise, whether they still live. */
import { readFileSync } from "node:fs";
import { dirname } from "node:path";

export const root = dirname(import.meta.dir);

/**
 * Runs a command to its end.
 *
 * @param env variables besides this process's own; undefined removes one.
 * @returns what it printed.
 * @throws Error where it fails.
 */
export async function outputOf(
  command: readonly string[],
  env: Readonly<Record<string, string | undefined>> = {},
): Promise<string> {
  const child = Bun.spawn([...command], { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "inherit"] });
  const said = await new Response(child.stdout).text();
  if ((await child.exited) !== 0) throw new Error(`${command.join(" ")} failed with exit code ${child.exitCode}`);
  return said;
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
