/** Workers that stop, die and multiply at random: each call ends, the others' calls go on, and nothing stays. */
import { expect, test } from "bun:test";
import { existsSync, writeSync } from "node:fs";
import { join } from "node:path";
import * as fc from "fast-check";
import { type AirlockError, connect, type Pack, type Server, Tuple } from "../../src/index.ts";
import { rejectionOf } from "../support/errors.ts";
import { newBystander } from "./bystander.ts";
import { isAlive, packs, root, until, useWorld } from "./support.ts";

const world = useWorld();
const probe = join(packs, "probe");

/** Back-off and holding have tests of their own. */
const limits = { backoffMsMin: 1, backoffMsMax: 1, deathsMax: 1_000_000, drainMsMax: 200 };

const pidsOf = (server: Server) =>
  server.status().packs.flatMap(({ workers }) => workers.flatMap(({ pid }) => (pid === 0 ? [] : [pid])));

test("200 workers, started and killed at random, leave nothing, and no other pack's call waits", async () => {
  const seed = Number(process.env["AIRLOCK_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  // Not by process.stdout, which takes a descriptor for itself.
  writeSync(1, `seed ${seed}: AIRLOCK_TEST_SEED=${seed} repeats this\n`);
  await using bystander = await newBystander(world, { limits });
  const { server, worker: spared } = bystander;
  const random = fc.sample(fc.nat(1_000_000), { seed, numRuns: 10_000 });
  const next = (bound: number) => (random.pop() ?? 0) % bound;
  const started = new Set<number>();
  const outcomes = new Map<string, number>();

  /** A host whose calls begin workers, over and over, until enough were started. */
  async function call(): Promise<void> {
    await using airlock = await connect({ socket: server.socketPath, name: "chaos" });
    const pack = await airlock.open(probe);
    while (started.size < 200) {
      const how = next(4);
      const value = next(1000);
      const called =
        how === 0
          ? pack.call("End", { how: ["SIGKILL", "_exit", "_exit in a thread", "abort"][next(4)] })
          : how === 1
            ? pack.call("AsyncEcho", { value, seconds: 0.02 })
            : pack.call("Echo", { value });
      const outcome = await called.then(
        (result) => expect(result).toEqual(Tuple.of(value)),
        (error: AirlockError) => error.code,
      );
      const said = typeof outcome === "string" ? outcome : "answered";
      outcomes.set(said, (outcomes.get(said) ?? 0) + 1);
    }
  }

  /** Kills one of the workers, whatever it is at. */
  async function kill(): Promise<void> {
    while (started.size < 200) {
      const pids = pidsOf(server).filter((pid) => pid !== spared);
      for (const pid of pids) started.add(pid);
      const pid = pids[next(Math.max(1, pids.length))];
      if (pid !== undefined) {
        // One that is stopped must end like any other.
        if (next(3) === 0) signal(pid, "SIGSTOP");
        signal(pid, (["SIGKILL", "SIGSEGV", "SIGTERM"] as const)[next(3)] ?? "SIGKILL");
        // Which leave it stopped where it was.
        signal(pid, "SIGCONT");
      }
      await Bun.sleep(next(60));
    }
  }
  await Promise.all([...Array.from({ length: 6 }, call), kill()]);
  for (const code of outcomes.keys()) expect(["answered", "worker_died", "worker_start_failed"]).toContain(code);
  expect(outcomes.get("answered")).toBeGreaterThan(0);
  await bystander.isUndisturbed();
  await until(() => ![...started].some(isAlive), "all of them are gone");
}, 180_000);

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended meanwhile.
  }
}

test("a worker that is stopped and goes on has lost nothing, and held up nobody", async () => {
  await using bystander = await newBystander(world, { limits });
  const pack = await openAnother(bystander.server);
  const { pid } = await pack.describe();
  process.kill(pid, "SIGSTOP");
  const calls = [1, 2, 3].map((value) => pack.call("Echo", { value }));
  await bystander.isUndisturbed();
  process.kill(pid, "SIGCONT");
  expect(await Promise.all(calls)).toEqual([1, 2, 3].map((value) => Tuple.of(value)));
  expect((await pack.describe()).pid).toBe(pid);
});

test("a worker whose native code holds the interpreter's lock for 10 s holds up nobody, and answers then", async () => {
  await using bystander = await newBystander(world, { limits: { ...limits, heartbeatMs: 1_000 } });
  const pack = await openAnother(bystander.server);
  await pack.describe();
  const held = pack.call("SleepHoldingGil", { seconds: 10 });
  const waiting = pack.call("Echo", { value: "after" });
  for (let look = 0; look < 9; look++) {
    await Bun.sleep(1_000);
    await bystander.isUndisturbed();
  }
  expect([await held, await waiting]).toEqual([Tuple.of(10), Tuple.of("after")]);
}, 60_000);

test("a child that keeps the line open hides its worker's death from nobody", async () => {
  await using bystander = await newBystander(world, { limits });
  const pack = await openAnother(bystander.server);
  const { pid } = await pack.describe();
  const [child] = (await pack.call("Escape")) as number[];
  try {
    const waiting = rejectionOf(pack.call("Sleep", { seconds: 600 }));
    process.kill(pid, "SIGKILL");
    expect((await waiting).details.exit).toStartWith("killed by SIGKILL");
    expect(await pack.call("Echo", { value: 1 })).toEqual(Tuple.of(1));
    await bystander.isUndisturbed();
  } finally {
    process.kill(child as number, "SIGKILL");
  }
});

test("a server without descriptors refuses what needs one, goes on with the rest, and recovers", async () => {
  const entry = join(root, "src", "cli", "main.ts");
  const serve = `ulimit -n 64; exec "${process.execPath}" "${entry}" serve --quiet --socket "${world.socket}"`;
  await using server = Bun.spawn(["bash", "-c", serve], {
    env: world.variables(),
    stdio: ["ignore", "ignore", "pipe"],
  });
  await until(() => existsSync(world.socket), "the server listens");
  await using first = await connect({ socket: world.socket });
  const spared = await first.open(probe);
  await spared.describe();
  const hosts = [];
  const refused: AirlockError[] = [];
  for (let count = 0; count < 30 && refused.length === 0; count++) {
    try {
      const host = await connect({ socket: world.socket });
      hosts.push(host);
      await (await host.open(probe)).describe({ deadlineMs: 20_000 });
    } catch (error) {
      refused.push(error as AirlockError);
    }
    expect(await spared.call("Echo", { value: count })).toEqual(Tuple.of(count));
  }
  expect(refused[0]?.describe()).toMatch(/too many open files/i);
  for (const host of hosts) await host.close();
  await until(async () => {
    await using host = await connect({ socket: world.socket });
    return await (await host.open(probe)).call("Echo", { value: "again" }).then(
      () => true,
      () => false,
    );
  }, "it has descriptors again");
  server.kill("SIGTERM");
  expect(await server.exited).toBe(0);
}, 120_000);

async function openAnother(server: Server): Promise<Pack> {
  return await (await world.connect(server)).open(probe);
}
