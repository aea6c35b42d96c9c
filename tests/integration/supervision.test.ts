/** Workers' lives: when they are started again, when they are not, when they end for want of work, and who is told. */
import { describe, expect, test } from "bun:test";
import { cpSync, utimesSync } from "node:fs";
import { join } from "node:path";
import {
  type AirlockError,
  type Pack,
  type RemoteObject,
  type Server,
  type ServerEvent,
  Tuple,
} from "../../src/index.ts";
import { rejectionOf } from "../support/errors.ts";
import { runAirlock, startServer } from "./processes.ts";
import { isAlive, packs, until, useWorld } from "./support.ts";

const world = useWorld();

const firstOf = (server: Server) => server.status().packs[0]?.workers[0];

async function pidOf(pack: Pack): Promise<number> {
  return ((await pack.describe()) as { pid: number }).pid;
}

describe("a pack whose workers keep dying", () => {
  const limits = { deathsMax: 3, backoffMsMin: 1, drainMsMax: 200 };

  /** The probe pack in a folder of its own, held because its workers have died. */
  async function held() {
    const folder = join(world.folder, "probe");
    cpSync(join(packs, "probe"), folder, { recursive: true });
    const events: ServerEvent[] = [];
    const server = await world.serve({ limits, onEvent: (event) => events.push(event) });
    const airlock = await world.connect(server);
    const pack = await airlock.open(folder);
    for (let death = 0; death < limits.deathsMax; death++) await rejectionOf(pack.call("End", { how: "_exit" }));
    return { folder, server, airlock, pack, events };
  }

  test("is held, and its callers are told at once why and what to do", async () => {
    const { server, pack, events } = await held();
    const error = await rejectionOf(pack.call("Echo", { value: 1 }));
    expect(error.code).toBe("pack_held");
    expect(error.message).toBe("pack probe is held: 3 of its workers died within 60 s, the last one: exit code 3");
    expect(error.details.log).toContain("about to end by _exit");
    expect(error.details.hint).toContain("airlock restart probe");
    expect(firstOf(server)).toMatchObject({ state: "held", pid: 0, deaths: 3, restarts: 2 });
    expect(events.filter(({ type }) => type === "pack_held")).toHaveLength(1);
  });

  test("is started again when the server is told to", async () => {
    const { pack } = await held();
    const { code, stdout } = await runAirlock(["restart", "probe", "--socket", world.socket], world);
    expect([code, stdout]).toEqual([0, "probe: restarted\n"]);
    expect(await pack.call("Echo", { value: 1 })).toEqual(Tuple.of(1));
  });

  test("is started again once one of its files was edited", async () => {
    const { pack, folder } = await held();
    expect((await rejectionOf(pack.call("Echo", { value: 1 }))).code).toBe("pack_held");
    utimesSync(join(folder, "nodes.py"), new Date(), new Date(Date.now() + 5_000));
    expect(await pack.call("Echo", { value: 1 })).toEqual(Tuple.of(1));
  });

  test("holds up no other pack", async () => {
    const { airlock } = await held();
    const other = await airlock.open(join(packs, "keeper"));
    expect(await other.call("Forget")).toEqual(Tuple.of(1));
  });
});

test("a worker that was ended for its host's sake is no death of the pack's", async () => {
  const { server, pack } = await world.probe({ limits: { graceMs: 50, deathsMax: 1, drainMsMax: 200 } });
  await pack.describe();
  const ended = Promise.withResolvers<void>();
  pack.onWorkerEnded(() => ended.resolve());
  await rejectionOf(pack.call("Sleep", { seconds: 600 }, { deadlineMs: 20 }));
  // A call that was made before this host knows of it would be told of it.
  await ended.promise;
  expect(await pack.call("Echo", { value: 1 })).toEqual(Tuple.of(1));
  expect(firstOf(server)).toMatchObject({ deaths: 0, restarts: 1 });
});

describe("a worker without work", () => {
  async function keeper() {
    const server = await world.serve();
    const airlock = await world.connect(server);
    const pack = await airlock.open(join(packs, "keeper"));
    return { server, airlock, pack };
  }
  const ended = (server: Server) => until(() => firstOf(server)?.pid === 0, "its worker has ended");

  test("ends after the time that its manifest sets, and the next call starts another", async () => {
    const { server, pack } = await keeper();
    // The first goes over the relay, the second over the line.
    const pids = [await pack.call("Pid"), await pack.call("Pid")] as number[][];
    expect(pids[0]).toEqual(pids[1] as number[]);
    await ended(server);
    await until(() => !isAlive(pids[0]?.[0] as number), "its process is gone");
    expect(await pack.call("Pid")).not.toEqual(pids[0] as number[]);
    expect(firstOf(server)).toMatchObject({ deaths: 0, restarts: 1, last_exit: expect.any(String) });
  });

  test("lives on while its node keeps something", async () => {
    const { server, pack } = await keeper();
    await pack.call("Count");
    await Bun.sleep(900);
    expect(await pack.call("Count")).toEqual(Tuple.of(2));
    expect(firstOf(server)).toMatchObject({ restarts: 0, health: { stateful: 1 } });
  });

  test("lives on while its host holds one of its objects, and ends when that is let go", async () => {
    const { server, pack } = await keeper();
    const [pid] = (await pack.call("Pid")) as number[];
    await (async () => {
      const [thing] = (await pack.call("Lend")) as RemoteObject[];
      await Bun.sleep(900);
      expect(await thing?.invoke("pid")).toBe(pid as number);
    })();
    await until(async () => {
      Bun.gc(true);
      await Bun.sleep(50);
      return firstOf(server)?.pid === 0;
    }, "its worker has ended");
  });

  test("lives on while it holds an object of its host's", async () => {
    const { server, pack } = await keeper();
    await pack.call("Hold", { value: () => 1 });
    await Bun.sleep(900);
    expect(await pack.call("Hold", { value: 2 })).toEqual(Tuple.of(2));
    expect(firstOf(server)).toMatchObject({ restarts: 0 });
  });

  test("lives on while its stream is read", async () => {
    const { pack } = await keeper();
    const [items] = (await pack.call("Items", { count: 3 })) as AsyncIterable<number>[];
    const pids: number[] = [];
    for await (const pid of items as AsyncIterable<number>) {
      pids.push(pid);
      await Bun.sleep(400);
    }
    expect(new Set(pids).size).toBe(1);
    expect(pids).toHaveLength(3);
  });

  test("never loses a call that comes just as it ends", async () => {
    const { server, pack } = await keeper();
    const pids = new Set<number>();
    // Around the time that it ends after, again and again.
    for (let turn = 0; turn < 12; turn++) {
      const [pid] = (await pack.call("Pid")) as number[];
      pids.add(pid as number);
      await Bun.sleep(290 + 2 * turn);
    }
    const status = firstOf(server);
    expect(status).toMatchObject({ deaths: 0 });
    expect(pids.size).toBe((status?.restarts ?? 0) + 1);
  }, 60_000);
});

describe("a pack that offers its state", () => {
  async function remember(events: ServerEvent[] = []) {
    const server = await world.serve({ onEvent: (event) => events.push(event) });
    const airlock = await world.connect(server);
    return { server, pack: await airlock.open(join(packs, "remember")) };
  }

  test("has it back after a crash, as it was after the last call", async () => {
    const { pack } = await remember();
    for (const value of [1, 20, 300]) await pack.call("Add", { value });
    await pack.call("AddLater", { value: 4000 });
    expect((await rejectionOf(pack.call("End"))).code).toBe("worker_died");
    const [sum, pids] = (await pack.call("Add", { value: 50_000 })) as [number, number[]];
    expect([sum, new Set(pids).size]).toEqual([54_321, 2]);
  });

  test("is ended for want of work though it keeps something, and has that back", async () => {
    const { server, pack } = await remember();
    await pack.call("Add", { value: 1 });
    await until(() => firstOf(server)?.pid === 0, "its worker has ended");
    expect(((await pack.call("Add", { value: 1 })) as number[])[0]).toBe(2);
  });

  test("begins anew where it refuses its state, and is told why", async () => {
    const events: ServerEvent[] = [];
    const { pack } = await remember(events);
    await pack.call("Add", { value: 1 });
    await pack.call("Poison", { how: "refuse" });
    await rejectionOf(pack.call("End"));
    expect(((await pack.call("Add", { value: 5 })) as number[])[0]).toBe(5);
    const [failed] = events.filter((event) => event.type === "restore_failed");
    expect(failed?.reason.message).toBe("pack remember: ValueError: this is not what I left");
  });

  test("begins anew where a worker dies of its state, and no call is lost", async () => {
    const { server, pack } = await remember();
    await pack.call("Add", { value: 1 });
    await pack.call("Poison", { how: "die" });
    await rejectionOf(pack.call("End"));
    expect(((await pack.call("Add", { value: 5 })) as number[])[0]).toBe(5);
    expect(firstOf(server)).toMatchObject({ deaths: 2, restarts: 2 });
  });

  test("keeps the state before one that it can't tell", async () => {
    const { pack } = await remember();
    await pack.call("Add", { value: 1 });
    await pack.call("Poison", { how: "untellable" });
    await pack.call("Add", { value: 1 });
    await rejectionOf(pack.call("End"));
    expect(((await pack.call("Add", { value: 5 })) as number[])[0]).toBe(6);
  });

  test("begins anew when it is restarted", async () => {
    const { server, pack } = await remember();
    await pack.call("Add", { value: 1 });
    expect((await runAirlock(["restart", "remember", "--socket", world.socket], world)).code).toBe(0);
    expect(((await pack.call("Add", { value: 5 })) as number[])[0]).toBe(5);
    expect(firstOf(server)).toMatchObject({ deaths: 0 });
  });
});

describe("how workers are", () => {
  test("is listed by airlock ps, and told whole by airlock stats", async () => {
    const { pack } = await world.probe();
    const pid = await pidOf(pack);
    const slow = pack.call("AsyncEcho", { value: 1, seconds: 1 });
    const { code, stdout } = await runAirlock(["ps", "--socket", world.socket], world);
    expect(code).toBe(0);
    const [titles, , row] = stdout.split("\n");
    expect(titles?.split(/\s+/)).toEqual([
      "PACK",
      "HOST",
      "PID",
      "STATE",
      "CALLS",
      "PSS",
      "SHARES",
      "AGE",
      "RESTARTS",
      "NOTE",
    ]);
    expect(row).toMatch(new RegExp(`^probe +test \\(${process.pid}\\) +${pid} +busy +1 +\\d.* MiB +– +\\d+ s +0$`));
    expect(await slow).toEqual(Tuple.of(1));
    const stats = await runAirlock(["stats", "--json", "--socket", world.socket], world);
    const [worker] = JSON.parse(stats.stdout).packs[0].workers;
    expect(worker).toMatchObject({ pid, state: "ready", health: { calls: 0, loop_lag_ms: expect.any(Number) } });
    expect(worker.pss_bytes).toBeGreaterThan(1_000_000);
    expect((await runAirlock(["stats", "--socket", world.socket], world)).code).toBe(2);
  });

  test("shows where native code holds the interpreter's lock, and nobody is ended for it", async () => {
    const events: ServerEvent[] = [];
    const { server, airlock, pack } = await world.probe({
      limits: { heartbeatMs: 100, drainMsMax: 200 },
      onEvent: (event) => events.push(event),
    });
    await pack.describe();
    const held = pack.call("SleepHoldingGil", { seconds: 2 });
    await until(() => events.some(({ type }) => type === "worker_silent"), "it is told that it says nothing");
    expect((await airlock.stats()).packs[0]?.workers[0]?.silent_ms).toBeGreaterThan(100);
    expect(await held).toEqual(Tuple.of(2));
    await until(() => events.some(({ type }) => type === "worker_answers"), "it is told that it is back");
    await until(() => (firstOf(server)?.answer_ms ?? 0) < 1_000, "it says how it is as before");
    expect(firstOf(server)).toMatchObject({ restarts: 0 });
  });

  test("is a message where there is no server, or no pack of that name", async () => {
    const nobody = await runAirlock(["ps", "--socket", world.socket], world);
    expect([nobody.code, nobody.stderr]).toEqual([1, expect.stringContaining("airlock ps:")]);
    await world.probe();
    const unknown = await runAirlock(["restart", "smudge", "--socket", world.socket], world);
    expect([unknown.code, unknown.stderr]).toEqual([1, expect.stringContaining('no host has a pack "smudge" open')]);
    expect((await runAirlock(["restart", "--socket", world.socket], world)).code).toBe(2);
  });
});

describe("airlock stop", () => {
  test("lets a call finish, refuses new ones over the line too, and ends the server", async () => {
    const server = await startServer(world);
    const airlock = await world.connect({ socketPath: world.socket } as Server);
    const pack = await airlock.open(join(packs, "probe"));
    await pack.describe();
    const slow = pack.call("AsyncEcho", { value: "done", seconds: 1 });
    const stopping = runAirlock(["stop", "--socket", world.socket], world);
    let refused: AirlockError | undefined;
    await until(async () => {
      await pack.call("Echo", { value: 1 }).catch((error: AirlockError) => {
        refused ??= error;
      });
      return refused !== undefined;
    }, "new calls are refused");
    expect([refused?.code, refused?.message]).toEqual(["server_stopping", expect.stringContaining("stopping")]);
    expect(await slow).toEqual(Tuple.of("done"));
    expect((await stopping).code).toBe(0);
    expect(await server.exited).toBe(0);
  });

  test("takes how long calls get", async () => {
    const server = await startServer(world);
    const airlock = await world.connect({ socketPath: world.socket } as Server);
    const pack = await airlock.open(join(packs, "probe"));
    await pack.describe();
    const slow = rejectionOf(pack.call("Sleep", { seconds: 600 }));
    expect((await runAirlock(["stop", "--within", "0.1", "--socket", world.socket], world)).code).toBe(0);
    expect((await slow).code).toBe("server_stopping");
    expect(await server.exited).toBe(0);
    expect((await runAirlock(["stop", "--within", "soon"], world)).code).toBe(2);
  });
});
