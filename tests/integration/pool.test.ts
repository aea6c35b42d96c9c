/** Packs with several workers, and with a process for each call: a TypeScript host and real workers. */
import { describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Pack, RemoteObject } from "../../src/index.ts";
import { decodeRaw } from "../../src/transport/codec.ts";
import { rejectionOf } from "../support/errors.ts";
import { collected, retried } from "../support/until.ts";
import { isAlive, packs, until, useWorld } from "./support.ts";

const world = useWorld();

/** The host leaves a line before its worker is ended: what a server waits for one that doesn't is of no interest here. */
const limits = { drainMsMax: 200, graceMs: 500 };

async function open(folder = join(packs, "pool")): Promise<Pack> {
  const server = await world.serve({ limits });
  const airlock = await world.connect(server);
  return await airlock.open(folder);
}

/** The same nodes under another manifest. */
function poolWith(...lines: string[]): string {
  const folder = join(world.folder, "pool");
  cpSync(join(packs, "pool"), folder, { recursive: true });
  const manifest = ["[project]", 'name = "pool"', "[tool.comfy.isolation]", "can_isolate = true", ...lines];
  writeFileSync(join(folder, "pyproject.toml"), `${manifest.join("\n")}\n`);
  return folder;
}

function newFolder(): string {
  mkdirSync(join(world.folder, "marks"), { recursive: true });
  return mkdtempSync(join(world.folder, "marks", "m"));
}

async function outputs(pack: Pack, node: string, inputs: Record<string, unknown> = {}): Promise<unknown[]> {
  return [...((await pack.call(node, inputs)) as unknown[])];
}

/** Calls that all wait for each other, so each is in a process of its own. */
async function meet(pack: Pack, count: number): Promise<number[]> {
  const inputs = { folder: newFolder(), count };
  const met = await Promise.all(Array.from({ length: count }, () => outputs(pack, "Meet", inputs)));
  return met.map(([pid]) => pid as number);
}

describe("a pack with several workers", () => {
  test("runs as many calls of synchronous nodes side by side, each in a process of its own", async () => {
    const pack = await open();
    expect(pack.workersMax).toBe(3);
    expect(new Set(await meet(pack, 3)).size).toBe(3);
  });

  test("starts no second worker for calls that follow one another", async () => {
    const pack = await open();
    const pids = new Set<unknown>();
    for (let round = 0; round < 3; round++) pids.add((await outputs(pack, "Pid"))[0]);
    expect(pids.size).toBe(1);
  });

  test("has a sticky node's calls go where the first one went", async () => {
    const pack = await open();
    await meet(pack, 3);
    const [first, ...others] = await Promise.all(Array.from({ length: 6 }, () => outputs(pack, "Remember")));
    expect(others.map(([pid]) => pid)).toEqual(Array(5).fill(first?.[0]));
    expect([first, ...others].map((each) => each?.[1])).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test("has an object go home to the process that it lives in, also still encoded and in lists", async () => {
    const pack = await open();
    await meet(pack, 3);
    const made = await Promise.all([1, 2, 3].map(() => outputs(pack, "MakeThing")));
    expect(new Set(made.map(([, pid]) => pid)).size).toBe(3);
    for (const [thing, pid] of made) {
      expect(await outputs(pack, "UseThing", { value: thing })).toEqual([true, pid]);
      expect(await outputs(pack, "UseThing", { value: [thing] })).toEqual([true, pid]);
      expect(await (thing as RemoteObject).invoke("pid")).toBe(pid as number);
    }
    // Still encoded it is the tuple of all outputs, of which none is a Thing; it names one, so it goes there.
    const raw = await Promise.all([1, 2, 3].map(() => pack.callRaw("MakeThing")));
    for (const value of raw) {
      const [, pid] = (await outputs(pack, "UseThing", { value })) as [boolean, number];
      expect(pid).toBe((decodeRaw(value) as unknown[])[1] as number);
    }
  });

  test("has what is called in a callback go to where the call waits that it answers", async () => {
    const pack = await open();
    await meet(pack, 3);
    const nested = async () => (await outputs(pack, "Pid"))[0];
    const calls = await Promise.all([1, 2, 3].map(() => outputs(pack, "CallBack", { function: nested })));
    for (const [inner, outer] of calls) expect(inner).toBe(outer);
  });

  test("tells an event to all that run, and hears all", async () => {
    const pack = await open();
    const pids = await meet(pack, 3);
    const heard: unknown[] = [];
    let ends = 0;
    pack.on("heard", (said) => heard.push((said as unknown[])[1]));
    pack.onWorkerEnded(() => {
      ends += 1;
    });
    // Of as many calls at once each goes to another.
    await Promise.all(pids.map(() => outputs(pack, "Listen")));
    await pack.emit("asked", 1);
    await until(() => heard.length === 3, "all three have answered");
    expect(heard.toSorted()).toEqual(pids.toSorted());
    for (const pid of pids) process.kill(pid, "SIGKILL");
    await until(() => ends === 3, "three ends were told");
  });
});

describe("a node that may be called again", () => {
  test("is, once, where its worker died under it", async () => {
    const pack = await open();
    const folder = newFolder();
    expect(await outputs(pack, "DieIdempotent", { folder })).toEqual([expect.any(Number)]);
    expect(readdirSync(folder).length).toBe(2);
  });

  test("is not a second time", async () => {
    const pack = await open();
    const folder = newFolder();
    const error = await rejectionOf(pack.call("DieIdempotent", { folder, count: 9 }));
    expect([error.code, readdirSync(folder).length]).toEqual(["worker_died", 2]);
  });

  test("is not where it was given anything by reference", async () => {
    const pack = await open();
    const folder = newFolder();
    const error = await rejectionOf(pack.call("DieIdempotent", { folder, value: () => 1 }));
    expect([error.code, readdirSync(folder).length]).toEqual(["worker_died", 1]);
  });

  test("is in a pack of one worker, too, and no other node is", async () => {
    const pack = await open(poolWith("[tool.comfy.isolation.nodes]", "DieIdempotent = { idempotent = true }"));
    const [once, again] = [newFolder(), newFolder()];
    expect((await rejectionOf(pack.call("Die", { folder: once }))).code).toBe("worker_died");
    expect(readdirSync(once).length).toBe(1);
    await outputs(pack, "DieIdempotent", { folder: again });
    expect(readdirSync(again).length).toBe(2);
  });
});

describe("a pack whose calls have a process each", () => {
  test("gives each a new one, and ends the old", async () => {
    const pack = await open(poolWith("fresh_process = true"));
    const [first] = await outputs(pack, "Pid");
    const [second] = await outputs(pack, "Pid");
    expect(second).not.toBe(first);
    expect(isAlive(first as number)).toBe(false);
  });

  test("runs as many at once as it has workers, and has the others wait in order", async () => {
    const pack = await open(poolWith("fresh_process = true", "workers = 2"));
    const order: number[] = [];
    const calls = Array.from({ length: 5 }, async (_, index) => {
      const [pid] = await outputs(pack, "Pid");
      order.push(index);
      return pid;
    });
    expect(new Set(await Promise.all(calls)).size).toBe(5);
    expect(order.slice(0, 2).toSorted()).toEqual([0, 1]);
    expect(order.at(-1)).toBeGreaterThan(2);
  });

  test("has a call give up while it waits", async () => {
    const pack = await open(poolWith("fresh_process = true"));
    const release = Promise.withResolvers<void>();
    const began = Promise.withResolvers<void>();
    const wait = async () => {
      began.resolve();
      await release.promise;
    };
    const busy = pack.call("CallBack", { function: wait });
    await began.promise;
    const late = await rejectionOf(pack.call("Pid", {}, { deadlineMs: 50 }));
    expect([late.code, late.message]).toEqual([
      "deadline_exceeded",
      "pack pool: the call took longer than its deadline of 50 ms",
    ]);
    const controller = new AbortController();
    const aborted = pack.call("Pid", {}, { signal: controller.signal }).catch((reason: unknown) => reason);
    controller.abort("enough");
    expect(await aborted).toBe("enough");
    release.resolve();
    await busy;
    expect(await outputs(pack, "Pid")).toEqual([expect.any(Number)]);
  });

  test(
    "keeps a process as long as something of it is held, and gives what it is given to that one",
    async () => {
      const pack = await open(poolWith("fresh_process = true", "workers = 2"));
      const pid = await useThing(pack);
      await outputs(pack, "Pid");
      await collected(() => !isAlive(pid), "its process has ended");
      expect(await outputs(pack, "Pid")).toEqual([expect.any(Number)]);
    },
    retried,
  );

  test("has calls that wait go on when what holds the only process is garbage", async () => {
    const pack = await open(poolWith("fresh_process = true"));
    await useThing(pack);
    expect(await outputs(pack, "Pid")).toEqual([expect.any(Number)]);
  });

  test("describes itself by a process that the next call gets", async () => {
    const pack = await open(poolWith("fresh_process = true"));
    const { pid } = await pack.describe();
    expect(await outputs(pack, "Pid")).toEqual([pid]);
  });

  test("goes on after a process has died", async () => {
    const pack = await open(poolWith("fresh_process = true"));
    const folder = newFolder();
    expect((await rejectionOf(pack.call("Die", { folder }))).code).toBe("worker_died");
    expect(await outputs(pack, "Pid")).toEqual([expect.any(Number)]);
  });

  test("fails the calls that wait when it is closed", async () => {
    const pack = await open(poolWith("fresh_process = true"));
    const began = Promise.withResolvers<void>();
    const never = new Promise<void>(() => undefined);
    const codes = [
      pack.call("CallBack", {
        function: async () => {
          began.resolve();
          await never;
        },
      }),
      pack.call("Pid"),
    ].map(async (call) => (await rejectionOf(call)).code);
    await began.promise;
    await pack.close();
    expect(await Promise.all(codes)).toEqual(["cancelled", "pack_not_open"]);
  });
});

/** Uses an object while its process is kept; nothing of it is held when this has returned. */
async function useThing(pack: Pack): Promise<number> {
  const [thing, pid] = await outputs(pack, "MakeThing");
  expect(await (thing as RemoteObject).invoke("pid")).toBe(pid as number);
  expect(await outputs(pack, "UseThing", { value: thing })).toEqual([true, pid]);
  return pid as number;
}
