/**
 * From no worker to its first answer, environment cached: what a pack's first call costs, and the call after a crash.
 *
 * Floors beside it, in turns with it: the same interpreter starting with nothing to do, and importing what a worker
 * needs before it can say hello.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, type Pack, serve } from "../../src/index.ts";
import { numbers } from "../comparison.ts";
import { isAlive, root } from "../processes.ts";
import type { Report, RunOptions, Scenario } from "../scenario.ts";
import { type Summary, summarise } from "../statistics.ts";

const probe = join(root, "tests", "packs", "probe");

export const spawn: Scenario = {
  name: "spawn",
  describe: "milliseconds from no worker to its first answer, environment cached",
  rounds: 15,
  run,
};

async function run({ rounds }: RunOptions): Promise<Report> {
  const columns = [{ title: `ms over ${rounds} rounds` }, ...["median", "min", "max"].map(numbers)];
  const rows = Object.entries(await measure(rounds)).map(([what, { median, min, max }]) => [
    what,
    ...[median, min, max].map((ms) => ms.toFixed(1)),
  ]);
  return { table: { columns, rows }, notes: [] };
}

/** Milliseconds of each step over `rounds` rounds: a round takes them in their order, as one makes way for the next. */
async function measure(rounds: number): Promise<Record<string, Summary>> {
  const folder = mkdtempSync(join(tmpdir(), "airlock-bench-"));
  try {
    await using server = await serve({ socket: join(folder, "s.sock"), logs: folder, limits: { drainMsMax: 0 } });
    await using airlock = await connect({ socket: server.socketPath, name: "bench" });
    const { python } = await (await airlock.open(probe)).prepare();
    const samples = new Map<string, number[]>();
    const time = async (step: string, action: () => Promise<unknown>): Promise<void> => {
      const startMs = performance.now();
      await action();
      samples.set(step, [...(samples.get(step) ?? []), performance.now() - startMs]);
    };
    for (let round = 0; round < rounds; round++) {
      const pack = await airlock.open(probe);
      await time("first call of a pack", () => pack.call("Echo", { value: round }));
      await killWorker(pack);
      await time("call after a crash, back-off included", () => pack.call("Echo", { value: round }));
      await time("floor: the interpreter", () => execute([python, "-c", "pass"]));
      await time("floor: the interpreter with socket, threading, msgpack", () =>
        execute([python, "-c", "import socket, threading, msgpack"]),
      );
      await pack.close();
    }
    return Object.fromEntries([...samples].map(([step, each]) => [step, summarise(each)]));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function killWorker(pack: Pack): Promise<void> {
  const { pid } = (await pack.describe()) as { pid: number };
  process.kill(pid, "SIGKILL");
  while (isAlive(pid)) await Bun.sleep(1);
  // The server has heard of it when the connection closed; give its loop a turn.
  await Bun.sleep(20);
}

async function execute(command: readonly string[]): Promise<void> {
  await Bun.spawn([...command], { stdio: ["ignore", "ignore", "ignore"] }).exited;
}
