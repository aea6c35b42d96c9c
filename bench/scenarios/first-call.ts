/**
 * From no worker to its first answer, environment cached, for a host in Bun: what a pack's first call costs, and the call
 * after a crash.
 *
 * Floors beside it, in turns with it: the same interpreter starting with nothing to do, and importing what a worker
 * needs before it can say hello.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, type Pack, serve } from "../../src/index.ts";
import { isAlive, root } from "../processes.ts";
import type { Figure } from "../results.ts";
import type { Scenario, Taken } from "../scenario.ts";

const probe = join(root, "tests", "packs", "probe");

export const firstCall: Scenario = {
  name: "first-call",
  group: "life",
  describe: "from no worker to its first answer, environment cached, host in Bun; beside the interpreter's own start",
  rounds: 7,
  bases: [],
  goals: [{ contender: "airlock", of: "first call of a pack", statistic: "once", atMost: 150 }],
  plan: () => Promise.resolve({ turns: [{ contender: "airlock", condition: "free", start: measure }], notes: [] }),
};

/** One of each step, in their order, as one makes way for the next. */
async function measure(): Promise<Taken> {
  const folder = mkdtempSync(join(tmpdir(), "airlock-bench-"));
  try {
    await using server = await serve({ socket: join(folder, "s.sock"), logs: folder, limits: { drainMsMax: 0 } });
    await using airlock = await connect({ socket: server.socketPath, name: "bench" });
    const { python } = await (await airlock.open(probe)).prepare();
    const figures: Figure[] = [];
    const time = async (of: string, action: () => Promise<unknown>): Promise<void> => {
      const startMs = performance.now();
      await action();
      figures.push({ of, statistic: "once", unit: "ms", value: performance.now() - startMs });
    };
    const pack = await airlock.open(probe);
    await time("first call of a pack", () => pack.call("Echo", { value: 1 }));
    await killWorker(pack);
    await time("call after a crash, back-off included", () => pack.call("Echo", { value: 1 }));
    await time("floor: the interpreter", () => execute([python, "-c", "pass"]));
    await time("floor: the interpreter with socket, threading, msgpack", () =>
      execute([python, "-c", "import socket, threading, msgpack"]),
    );
    await pack.close();
    return { figures };
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
