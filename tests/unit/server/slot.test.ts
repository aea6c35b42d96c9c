import { describe, expect, test } from "bun:test";

import { join } from "node:path";
import type { Environment } from "../../../src/server/environments/environments.ts";
import type { PackManifest } from "../../../src/server/environments/manifest.ts";
import type { Line } from "../../../src/server/line.ts";
import type { Call } from "../../../src/server/session.ts";
import { Slot } from "../../../src/server/slot.ts";
import type { SlotPack, SlotServices } from "../../../src/server/slot-services.ts";
import type { ProcessExit } from "../../../src/server/workers/exit.ts";
import type { Worker } from "../../../src/server/workers/worker.ts";
import { ManualClock } from "../../../src/transport/clock.ts";
import { decode, encode } from "../../../src/transport/codec.ts";
import type { Health, Progress } from "../../../src/transport/control.ts";
import { AirlockError } from "../../../src/transport/errors.ts";
import { defaultLimits, type Limits } from "../../../src/transport/limits.ts";
import type { RawValue } from "../../../src/transport/values.ts";
import { temporaryFolders } from "../../support/folders.ts";
import { newWorkerLog } from "../../support/logs.ts";
import { type FakeLink, frame, manifestOf, settled, workerHello } from "../../support/peers.ts";
import { newCall, newSession } from "../../support/sessions.ts";

const newFolder = temporaryFolders();

const environment: Environment = {
  directory: "/e",
  python: "/e/python",
  key: "k",
  pythonVersion: "3.12.1",
  fresh: true,
};

/** A process that ends when the test says so, or when it is killed. */
class FakeProcess {
  readonly pid: number;
  readonly #exited = Promise.withResolvers<ProcessExit>();
  killed = 0;
  crashStack: string | undefined;

  constructor(pid: number) {
    this.pid = pid;
  }

  get exited(): Promise<ProcessExit> {
    return this.#exited.promise;
  }

  async dumpStacks(): Promise<string> {
    return `the stacks of ${this.pid}`;
  }

  exit(exit: Partial<ProcessExit>): void {
    this.#exited.resolve({ code: null, signal: null, ...exit });
  }

  kill(): void {
    this.killed += 1;
    this.exit({ signal: "SIGKILL" });
  }
}

const idle: Health = { calls: 0, held: 0, holds: 0, stateful: 0, idle_ms: 0, loop_lag_ms: null, memory: null };

/** @param joins whether host and worker can take lines. */
function newSlot(joins = false, limits: Partial<Limits> = {}, manifest: Partial<PackManifest> = {}) {
  const clock = new ManualClock();
  const environments: {
    resolve: (made: Environment) => void;
    reject: (reason: unknown) => void;
    onProgress: (progress: Progress) => void;
  }[] = [];
  const spawned: { process: FakeProcess; worker: Worker }[] = [];
  const expected = new Set<Worker>();
  const told: string[] = [];
  const events: string[] = [];
  const reasons: AirlockError[] = [];
  let spawnFailure: AirlockError | undefined;
  /** Settles when a process that is being started is there. */
  let spawning: Promise<void> = Promise.resolve();
  /** How the worker is, what asks it, and what it has over the relay. */
  const said: {
    restore: (state: RawValue) => Promise<void>;
    health: Health | undefined;
    asked: string[];
    relayed: number;
  } = {
    restore: async () => undefined,
    health: idle,
    asked: [],
    relayed: 0,
  };
  const files = { stamp: "as it was" };
  const closing = new AbortController();
  const pack: SlotPack = {
    name: "blur",
    manifest: { ...manifestOf("blur"), ...manifest },
    callTimeout: undefined,
    audience: 0,
    closing: closing.signal,
    prepare: (onProgress) => {
      const { promise, resolve, reject } = Promise.withResolvers<Environment>();
      closing.signal.addEventListener("abort", () => reject(closing.signal.reason));
      environments.push({ resolve, reject, onProgress });
      return promise;
    },
  };
  const services: SlotServices = {
    clock,
    limits: { ...defaultLimits, ...limits },
    onEvent: (event) => events.push(event.type),
    ask: async (_, method, __, keywords) => {
      said.asked.push(method);
      if (method === "restore") await said.restore((keywords as { state: RawValue }).state);
      if (method !== "health") return null;
      return await (said.health ?? new Promise<never>(() => undefined));
    },
    callsOf: () => said.relayed,
    ownedBy: () => ({ segments: 2, bytes: 8192 }),
    pssOf: async (pid) => pid * 1_000,
    stampOf: async () => files.stamp,
    spawn: async (_, worker) => {
      await spawning;
      if (spawnFailure !== undefined) throw spawnFailure;
      const process = new FakeProcess(100 + spawned.length);
      spawned.push({ process, worker });
      return process;
    },
    expect: (worker) => void expected.add(worker),
    unexpect: (worker) => void expected.delete(worker),
    deliver: (call, _, worker) => told.push(`deliver ${call.callerCall} to ${worker.peer}`),
    fail: (call, error) => {
      reasons.push(error);
      told.push(`fail ${call.callerCall} ${error.code}`);
    },
    progress: (call, progress) => told.push(`progress ${call.callerCall} ${progress.stage}`),
    notify: (session, name, value) => told.push(`notify ${session.peer} ${name} ${JSON.stringify(value)}`),
    joinByLine: (_, worker, pack, number) => {
      if (!joins) return undefined;
      told.push(`join ${worker.peer} to ${pack} by line ${number}`);
      return { end: () => told.push(`end line ${number}`) } as unknown as Line;
    },
    leave: (session, error) => {
      reasons.push(error);
      told.push(`leave ${session.peer} ${error.code}`);
    },
  };
  const host = newSession(1);
  const log = newWorkerLog(join(newFolder(), "pack.log"));
  const slot = new Slot(2, host, pack, log, services);
  const close = (reason = new AirlockError("cancelled", "the pack blur was closed")) => {
    closing.abort(reason);
    slot.close();
  };
  const submit = (number: number): Call => {
    const call = newCall(host, number, 2);
    slot.submit(call, frame("call", 2, number, []));
    return call;
  };
  /** Lets the last worker that was spawned say hello. */
  const admit = async () => {
    const last = spawned.at(-1);
    if (last === undefined) throw new Error("no worker was spawned");
    const session = newSession(10 + spawned.length, { ...workerHello, pid: last.process.pid }, slot);
    last.worker.admit(session);
    await settled();
    return { ...last, session, link: session.link as FakeLink };
  };
  /** Ends the environment's making, and lets what follows happen. */
  const made = async (index = environments.length - 1) => {
    environments[index]?.resolve(environment);
    await settled();
  };
  /** Has the next processes take their time; returns what ends that. */
  const spawnLate = (): (() => void) => {
    const late = Promise.withResolvers<void>();
    spawning = late.promise;
    return late.resolve;
  };
  const refuseToSpawn = (error: AirlockError) => {
    spawnFailure = error;
  };
  /** Has a worker started, and die of its own. */
  const die = async () => {
    submit(900 + spawned.length);
    clock.advance(defaultLimits.backoffMsMax);
    await made();
    const last = await admit();
    last.process.exit({ code: 1 });
    last.worker.connectionClosed(undefined);
    await settled();
  };
  const state = () => slot.status().state;
  return {
    ...{ clock, environments, spawned, expected, told, events, reasons, slot, said, files },
    ...{ submit, admit, made, spawnLate, refuseToSpawn, close, die, state },
  };
}

/** A pack whose worker is ready and has been given call 1. */
async function ready(joins = false, limits: Partial<Limits> = {}, manifest: Partial<PackManifest> = {}) {
  const made = newSlot(joins, limits, manifest);
  made.submit(1);
  await made.made();
  const worker = await made.admit();
  made.told.length = 0;
  return { ...made, worker };
}

/** What the host is told when its worker of this number has ended. */
const workerEnded = (number: number) => `notify 1 worker_ended {"pack":2,"number":${number}}`;

describe("calls that wait for a worker", () => {
  test("get one environment and one worker between them, and are delivered in order", async () => {
    const { environments, spawned, expected, told, events, submit, made, admit, slot } = newSlot();
    for (const number of [1, 2, 3]) submit(number);
    await made();
    submit(4);
    expect([environments.length, spawned.length, expected.size]).toEqual([1, 1, 1]);
    expect([slot.status(), slot.waiting]).toMatchObject([{ pid: 100, state: "starting", calls: 0 }, 4]);
    expect(told).toEqual([]);
    await admit();
    expect(told).toEqual([1, 2, 3, 4].map((number) => `deliver ${number} to 11`));
    expect(expected.size).toBe(0);
    expect(events).toEqual(["worker_started"]);
    submit(5);
    expect(told.at(-1)).toBe("deliver 5 to 11");
    expect(spawned).toHaveLength(1);
  });

  test("hear how the environment is made", () => {
    const { environments, told, submit } = newSlot();
    submit(1);
    submit(2);
    environments[0]?.onProgress({ pack: "blur", stage: "install", message: "m" });
    expect(told).toEqual(["progress 1 install", "progress 2 install"]);
  });

  test("all fail with the reason where the environment cannot be made, and the next call tries again", async () => {
    const { environments, told, submit, spawned } = newSlot();
    submit(1);
    submit(2);
    environments[0]?.reject(new AirlockError("environment_failed", "no such package"));
    await settled();
    expect(told).toEqual(["fail 1 environment_failed", "fail 2 environment_failed"]);
    submit(3);
    expect([environments.length, spawned.length]).toEqual([2, 0]);
  });

  test("all fail with exit and reason where the worker ends before its hello", async () => {
    const { clock, told, reasons, submit, made, spawned, expected, slot } = newSlot();
    submit(1);
    submit(2);
    await made();
    spawned[0]?.process.exit({ code: 3 });
    await settled();
    expect(told).toEqual([workerEnded(1), "fail 1 worker_start_failed", "fail 2 worker_start_failed"]);
    expect(reasons[0]?.details.exit).toBe("exit code 3");
    expect([expected.size, slot.status()]).toMatchObject([0, { pid: 0, state: "dead", segments: 0 }]);
    submit(3);
    clock.advance(defaultLimits.backoffMsMin);
    await made();
    expect(spawned).toHaveLength(2);
  });

  test("all fail where no process can be spawned", async () => {
    const { told, submit, made, refuseToSpawn, expected, clock, slot } = newSlot();
    refuseToSpawn(new AirlockError("worker_start_failed", "no such interpreter"));
    submit(1);
    await made();
    expect(told).toEqual(["fail 1 worker_start_failed"]);
    expect([expected.size, slot.status()]).toMatchObject([0, { pid: 0, state: "dead" }]);
    clock.advance(defaultLimits.workerStartMsMax);
  });

  test("all fail where the worker says no hello in time, and it is killed", async () => {
    const { clock, told, reasons, submit, made, spawned } = newSlot();
    submit(1);
    await made();
    clock.advance(defaultLimits.workerStartMsMax - 1);
    expect(spawned[0]?.process.killed).toBe(0);
    clock.advance(1);
    await settled();
    expect(spawned[0]?.process.killed).toBeGreaterThan(0);
    expect(told).toEqual([workerEnded(1), "fail 1 worker_start_failed"]);
    expect(reasons[0]?.details.exit).toBe("no hello within 60 s");
  });

  test("fail alone where more would wait than the server holds for anybody", async () => {
    const { told, reasons, submit, environments } = newSlot(false, { outboxBytesMax: 40 });
    for (const number of [1, 2, 3]) submit(number);
    expect(told).toEqual(["fail 3 limit_exceeded"]);
    expect(reasons[0]?.message).toBe("pack blur: too much waits for its worker to start; 40 bytes may");
    expect(environments).toHaveLength(1);
  });

  test("are not delivered if they were withdrawn", async () => {
    const { told, submit, made, admit, slot } = newSlot();
    submit(1);
    const second = submit(2);
    slot.withdraw(second);
    await made();
    await admit();
    expect(told).toEqual(["deliver 1 to 11"]);
  });
});

describe("a worker that ends", () => {
  test("fails its calls with how it ended, and the next call starts a fresh one", async () => {
    const { clock, told, reasons, events, worker, submit, made, admit, spawned, slot } = await ready();
    worker.process.exit({ signal: "SIGSEGV" });
    worker.worker.connectionClosed(undefined);
    await settled();
    expect(told).toEqual(["leave 11 worker_died", workerEnded(1)]);
    expect(reasons[0]?.details).toMatchObject({ pack: "blur", exit: "killed by SIGSEGV (segmentation fault)" });
    expect(events).toEqual(["worker_started", "worker_ended"]);
    expect(slot.status()).toMatchObject({ pid: 0, state: "dead", deaths: 1, last_exit: expect.any(String) });
    expect(spawned).toHaveLength(1);
    submit(2);
    clock.advance(defaultLimits.backoffMsMin);
    await made();
    await admit();
    expect(told.at(-1)).toBe("deliver 2 to 12");
  });

  test("over a limit is told of with what it exceeded, and where that is set, also before it was ready", async () => {
    const exceeded = { what: "memory 8.3 GiB of 8 GiB (PSS of 2 processes)", source: "limits.memory in /p.toml" };
    const { clock, reasons, worker, submit, made, spawned } = await ready();
    worker.process.exit({ signal: "SIGKILL", exceeded });
    worker.worker.connectionClosed(undefined);
    await settled();
    submit(2);
    clock.advance(defaultLimits.backoffMsMin);
    await made();
    spawned[1]?.process.exit({ signal: "SIGKILL", exceeded });
    await settled();
    expect(reasons.map(({ code, message }) => [code, message])).toEqual([
      ["worker_died", `pack blur: its worker (pid 100) was ended: ${exceeded.what}`],
      [
        "worker_start_failed",
        `pack blur: its worker (pid 101) ended before it was ready: over its limit: ${exceeded.what}`,
      ],
    ]);
    for (const { details } of reasons) {
      expect(details.hint).toStartWith("raise limits.memory in /p.toml, or have the pack take less");
    }
  });

  test("is told of to its host by which of the pack's workers it was", async () => {
    const { clock, told, worker, submit, made, admit } = await ready();
    worker.process.exit({ code: 0 });
    worker.worker.connectionClosed(undefined);
    await settled();
    submit(2);
    clock.advance(defaultLimits.backoffMsMin);
    await made();
    const second = await admit();
    told.length = 0;
    second.process.exit({ code: 0 });
    second.worker.connectionClosed(undefined);
    await settled();
    expect(told).toEqual(["leave 12 worker_died", workerEnded(2)]);
  });

  test("is waited for before the next one is spawned", async () => {
    const { clock, worker, submit, made, spawned } = await ready();
    worker.worker.connectionClosed(undefined);
    submit(2);
    await made();
    expect(spawned).toHaveLength(1);
    worker.process.exit({ code: 0 });
    await settled();
    clock.advance(defaultLimits.backoffMsMin);
    await made();
    expect(spawned).toHaveLength(2);
  });
});

describe("closing", () => {
  test("a pack that is idle spawns and tells nothing", async () => {
    const { told, events, spawned, slot, close } = newSlot();
    close();
    await slot.ended;
    expect([told, events, spawned]).toEqual([[], [], []]);
  });

  test("while the environment is being made gives that up, and fails what waits", async () => {
    const { told, environments, submit, spawned, close } = newSlot();
    submit(1);
    close();
    await settled();
    expect(environments).toHaveLength(1);
    expect(told).toEqual(["fail 1 cancelled"]);
    expect(spawned).toEqual([]);
  });

  test("while the worker starts kills it, and fails what waits with the true reason", async () => {
    const { clock, told, events, submit, made, spawned, slot, close } = newSlot();
    submit(1);
    await made();
    close();
    clock.advance(0);
    await slot.ended;
    await settled();
    expect(spawned[0]?.process.killed).toBeGreaterThan(0);
    expect(told).toEqual([workerEnded(1), "fail 1 cancelled"]);
    expect(events).toEqual(["worker_ended"]);
  });

  test("while its process is being started kills that once it is there, and is not over before", async () => {
    const { clock, told, reasons, submit, made, spawned, slot, close, spawnLate } = newSlot();
    const spawnNow = spawnLate();
    submit(1);
    await made();
    close();
    let isOver = false;
    void slot.ended.then(() => {
      isOver = true;
    });
    await settled();
    expect([spawned, isOver]).toEqual([[], false]);
    spawnNow();
    await settled();
    clock.advance(0);
    await slot.ended;
    await settled();
    expect(spawned[0]?.process.killed).toBeGreaterThan(0);
    expect([isOver, told]).toEqual([true, [workerEnded(1), "fail 1 cancelled"]]);
    expect(reasons[0]?.message).toBe("the pack blur was closed");
  });

  test("asks a ready worker to end, and kills it where it does not", async () => {
    const { clock, worker, slot, close, told, reasons } = await ready();
    close();
    expect(worker.link.closedBy).toBe("end");
    expect(worker.process.killed).toBe(0);
    clock.advance(1000);
    expect(worker.process.killed).toBe(1);
    worker.worker.connectionClosed(undefined);
    await slot.ended;
    expect(told).toEqual(["leave 11 cancelled", workerEnded(1)]);
    expect(reasons[0]?.message).toBe("the pack blur was closed");
  });

  test("for a reason tells that reason to the calls under way", async () => {
    const { worker, slot, close, told } = await ready();
    close(new AirlockError("server_stopping", "bye"));
    worker.process.exit({ code: 0 });
    worker.worker.connectionClosed(undefined);
    await slot.ended;
    expect(told).toEqual(["leave 11 server_stopping", workerEnded(1)]);
  });
});

describe("a line to the worker", () => {
  test("is made when the worker is ready, and ended when it has ended", async () => {
    const { clock, slot, worker, told, submit, made, admit } = await ready(true);
    const ending = slot.lines.ending(1);
    worker.process.exit({ signal: "SIGKILL" });
    worker.worker.connectionClosed(undefined);
    await settled();
    expect(told).toEqual(["end line 1", "leave 11 worker_died", workerEnded(1)]);
    expect((await ending).details.exit).toStartWith("killed by SIGKILL");
    submit(2);
    clock.advance(defaultLimits.backoffMsMin);
    await made();
    await admit();
    expect(told).toContain("join 12 to 2 by line 2");
    expect((await slot.lines.ending(1)).code).toBe("worker_died");
  });

  test("that has ended ends its worker, where that lives on", async () => {
    const { slot, worker, clock, reasons } = await ready(true);
    const ending = slot.lines.ending(1);
    clock.advance(defaultLimits.lineEndMsMax - 1);
    expect(worker.process.killed).toBe(0);
    clock.advance(1);
    expect(worker.process.killed).toBeGreaterThan(0);
    worker.worker.connectionClosed(undefined);
    await settled();
    expect((await ending).details.exit).toContain("its line to the host had ended");
    expect(reasons[0]?.code).toBe("worker_died");
  });

  test("that was never there, or was forgotten, ended with its worker", async () => {
    const { slot } = await ready(true);
    expect((await slot.lines.ending(7)).message).toContain("line 7 has ended");
  });

  test("that cannot be made leaves the relay", async () => {
    const { told, submit } = await ready();
    submit(2);
    expect(told).toEqual(["deliver 2 to 11"]);
  });
});

describe("a worker that does not answer", () => {
  const overdue = "ended by its host: it had not answered a call long after that was cancelled or overdue";

  test("on its line is ended when its host says so, and the reason is told", async () => {
    const { slot, worker, reasons } = await ready(true);
    slot.lines.endOverdue(1);
    expect(worker.process.killed).toBeGreaterThan(0);
    worker.worker.connectionClosed(undefined);
    await settled();
    expect([reasons[0]?.code, reasons[0]?.details.exit]).toEqual(["worker_died", overdue]);
  });

  test("is not ended for a line that was another worker's, or never there", async () => {
    const { slot, worker } = await ready(true);
    for (const line of [0, 2]) slot.lines.endOverdue(line);
    const relayed = await ready(false);
    relayed.slot.lines.endOverdue(1);
    expect([worker.process.killed, relayed.worker.process.killed]).toEqual([0, 0]);
  });

  test("on the relay is ended by its session, unless another has taken its place", async () => {
    const { slot, worker, reasons } = await ready();
    slot.endWorker(newSession(99, workerHello, slot), "another's fault");
    expect(worker.process.killed).toBe(0);
    slot.endWorker(worker.session, "its own fault");
    worker.worker.connectionClosed(undefined);
    await settled();
    expect(reasons[0]?.details.exit).toBe("its own fault");
  });
});

describe("a worker that died", () => {
  test("is followed by another only after the back-off, which grows", async () => {
    const { worker, submit, made, clock, spawned, state, told } = await ready();
    worker.process.exit({ code: 1 });
    worker.worker.connectionClosed(undefined);
    await settled();
    submit(2);
    clock.advance(defaultLimits.backoffMsMin - 1);
    expect([state(), spawned.length]).toEqual(["dead", 1]);
    clock.advance(1);
    await made();
    expect([state(), spawned.length]).toEqual(["starting", 2]);
    spawned[1]?.process.exit({ code: 1 });
    await settled();
    expect(told.at(-1)).toBe("fail 2 worker_start_failed");
    submit(3);
    clock.advance(2 * defaultLimits.backoffMsMin - 1);
    expect(state()).toBe("dead");
    clock.advance(1);
    expect(state()).toBe("starting");
  });

  test("too often has its pack held, and calls fail at once with how the last one died", async () => {
    const { die, submit, told, reasons, state, events, spawned, slot } = newSlot();
    for (let death = 0; death < defaultLimits.deathsMax; death++) await die();
    expect([state(), events.at(-1), slot.status().deaths]).toEqual(["held", "pack_held", defaultLimits.deathsMax]);
    submit(1);
    await settled();
    expect([told.at(-1), spawned.length]).toEqual(["fail 1 pack_held", defaultLimits.deathsMax]);
    expect(reasons.at(-1)?.message).toBe(
      "pack blur is held: 5 of its workers died within 60 s, the last one: exit code 1",
    );
    expect(reasons.at(-1)?.details.hint).toContain("airlock restart blur");
  });

  test("too often is started again once it is told to", async () => {
    const { die, submit, state, slot, made, admit, told } = newSlot();
    for (let death = 0; death < defaultLimits.deathsMax; death++) await die();
    slot.release();
    expect(state()).toBe("dead");
    submit(1);
    await made();
    await admit();
    expect(told.at(-1)).toBe("deliver 1 to 16");
  });

  test("too often is started again by a call once a file of the pack was edited", async () => {
    const { die, submit, state, files } = newSlot();
    for (let death = 0; death < defaultLimits.deathsMax; death++) await die();
    files.stamp = "mended";
    submit(1);
    await settled();
    expect(state()).toBe("starting");
  });

  test("because its host had it ended is followed by another at once", async () => {
    const { slot, worker, submit, state } = await ready(true);
    slot.lines.endOverdue(1);
    worker.worker.connectionClosed(undefined);
    await settled();
    submit(2);
    expect([state(), slot.status().deaths]).toEqual(["starting", 0]);
  });

  test("leaves no call waiting where its pack is closed during the back-off", async () => {
    const { worker, submit, close, told } = await ready();
    worker.process.exit({ code: 1 });
    worker.worker.connectionClosed(undefined);
    await settled();
    submit(2);
    close();
    expect(told.at(-1)).toBe("fail 2 cancelled");
  });
});

describe("a worker without work", () => {
  const manifest = { idleTimeoutMs: 5_000 };

  /** A worker on a line that says it had nothing to do for so long. */
  async function idleFor(idle_ms: number, health: Partial<Health> = {}) {
    const made = await ready(true, { heartbeatMs: 1e9 }, manifest);
    made.said.health = { ...idle, idle_ms, ...health };
    made.clock.advance(5_000);
    await settled();
    return made;
  }

  test("is ended when its host has left the line, and that is no death", async () => {
    const { slot, worker, told, state, submit, made, admit } = await idleFor(5_000);
    expect([told, state()]).toEqual([['notify 1 leave_line {"pack":2,"line":1}'], "draining"]);
    expect(worker.link.closedBy).toBeUndefined();
    submit(2);
    slot.lines.left(1);
    await settled();
    expect([worker.link.closedBy, state()]).toEqual(["end", "stopping"]);
    worker.process.exit({ code: 0 });
    worker.worker.connectionClosed(undefined);
    await settled();
    expect([slot.status().deaths, state()]).toEqual([0, "starting"]);
    await made();
    await admit();
    expect(told.at(-1)).toBe("deliver 2 to 12");
  });

  test.each<[string, Partial<Health>]>([
    ["a call", { calls: 1 }],
    ["a reference of its host's", { held: 1 }],
    ["an object of its host's", { holds: 1 }],
    ["a node that keeps something", { stateful: 1 }],
  ])("is not ended while it has %s", async (_, health) => {
    const { told, state, clock, said } = await idleFor(60_000, health);
    expect(told).toEqual([]);
    said.health = { ...idle, idle_ms: 60_000 };
    clock.advance(5_000);
    await settled();
    expect(state()).toBe("draining");
  });

  test("is looked at again when it will have been idle long enough", async () => {
    const { told, said, clock } = await idleFor(2_000);
    said.health = { ...idle, idle_ms: 5_000 };
    clock.advance(2_999);
    await settled();
    expect(told).toEqual([]);
    clock.advance(1);
    await settled();
    expect(told).toEqual(['notify 1 leave_line {"pack":2,"line":1}']);
  });

  test("goes on, and with it the line, where it got some meanwhile", async () => {
    const { slot, said, told, submit, state } = await idleFor(5_000);
    submit(2);
    said.health = { ...idle, calls: 1 };
    slot.lines.left(1);
    await settled();
    expect(told.slice(1)).toEqual(['notify 1 use_line {"pack":2,"line":1}', "deliver 2 to 11"]);
    expect(state()).toBe("busy");
  });

  test("goes on where its host does not leave the line", async () => {
    const { told, clock, state } = await idleFor(5_000);
    clock.advance(defaultLimits.questionMsMax);
    await settled();
    expect([told.at(-1), state()]).toEqual(['notify 1 use_line {"pack":2,"line":1}', "ready"]);
  });

  test("lives on where the manifest sets no time", async () => {
    const { clock, told, state } = await ready(true, { heartbeatMs: 1e9 });
    clock.advance(1e8);
    await settled();
    expect([told, state()]).toEqual([[], "ready"]);
  });
});

describe("a worker that drains", () => {
  test("is given nothing new but what is called on behalf of what it has", async () => {
    const { slot, submit, told, said, state } = await ready();
    const draining = slot.drain(1_000);
    expect(state()).toBe("draining");
    submit(2);
    const nested = newCall(slot.host, 3, 2);
    slot.submit(nested, frame("call", 2, 3, [], { parent: 1 }));
    await draining;
    expect([told, said.asked]).toEqual([["deliver 3 to 11"], ["idle"]]);
  });

  test("is ended when it has answered, where it is retired; whoever wants that hears when it is gone", async () => {
    const { slot, worker, state, said } = await ready();
    let isGone = false;
    const retiring = [slot.retire(), slot.retire()].map((each) => each.then(() => (isGone = true)));
    await settled();
    expect([worker.link.closedBy, state(), isGone]).toEqual(["end", "stopping", false]);
    worker.process.exit({ code: 0 });
    worker.worker.connectionClosed(undefined);
    await Promise.all(retiring);
    expect([said.asked.includes("idle"), state()]).toEqual([true, "dead"]);
  });

  test("cannot be retired before it is there, and need not be after it is gone", async () => {
    const { slot, submit, state } = newSlot();
    await slot.retire();
    submit(1);
    await slot.retire();
    expect(state()).toBe("starting");
  });
});

describe("the state that a worker leaves behind", () => {
  /** A slot whose first worker has told its state and died, and whose next one is about to be admitted. */
  async function afterDeath() {
    const made = await ready();
    const { slot, worker, clock, submit } = made;
    slot.told(worker.session, encode(["checkpoint", { sum: 7 }]));
    worker.process.exit({ code: 1 });
    worker.worker.connectionClosed(undefined);
    await settled();
    submit(2);
    clock.advance(defaultLimits.backoffMsMin);
    await made.made();
    made.told.length = 0;
    return made;
  }

  test("is given to the next one before any call", async () => {
    const { said, told, admit } = await afterDeath();
    const { promise, resolve } = Promise.withResolvers<void>();
    const states: unknown[] = [];
    said.restore = async (state) => {
      states.push(decode(state.bytes));
      await promise;
    };
    await admit();
    expect([states, told]).toEqual([[{ sum: 7 }], []]);
    resolve();
    await settled();
    expect(told).toEqual(["deliver 2 to 12"]);
  });

  test("is told of where it could not be given, and the calls go on without", async () => {
    const { said, told, events, admit } = await afterDeath();
    said.restore = () => Promise.reject(new AirlockError("remote_exception", "not mine"));
    await admit();
    expect([told, events.at(-1)]).toEqual([["deliver 2 to 12"], "restore_failed"]);
  });

  test("is given to nobody where one died of it, and the calls wait for the one after that", async () => {
    const { said, told, admit, clock, made } = await afterDeath();
    const { promise, reject } = Promise.withResolvers<void>();
    said.restore = () => promise;
    const second = await admit();
    second.process.exit({ code: 4 });
    second.worker.connectionClosed(undefined);
    reject(new AirlockError("worker_died", "died"));
    await settled();
    clock.advance(2 * defaultLimits.backoffMsMin);
    await made();
    await admit();
    expect(told.at(-1)).toBe("deliver 2 to 13");
    expect(said.asked.filter((method) => method === "restore")).toHaveLength(1);
  });

  test("is forgotten where the slot is restarted, and not taken of a worker that is gone", async () => {
    const { slot, worker, said, admit } = await afterDeath();
    await slot.restart();
    slot.told(worker.session, encode(["checkpoint", 1]));
    await admit();
    expect(said.asked).not.toContain("restore");
  });
});

describe("how a worker is", () => {
  test("is asked for a status that is wanted now, and waited for a second at most", async () => {
    const { clock, said, slot } = await ready();
    said.health = { ...idle, held: 3 };
    await slot.look();
    expect(slot.status()).toMatchObject({ health: { held: 3 }, pss_bytes: 100_000, segments: 2, segment_bytes: 8192 });
    said.health = undefined;
    const looking = slot.look();
    clock.advance(1_000);
    await looking;
    expect(slot.status()).toMatchObject({ health: { held: 3 }, silent_ms: 1_000 });
  });

  test("is asked at every heartbeat, and told with how long it took to say so", async () => {
    const { clock, said, slot } = await ready();
    said.health = { ...idle, calls: 2 };
    expect(slot.status()).toMatchObject({ state: "ready", health: null, answer_ms: null });
    clock.advance(defaultLimits.heartbeatMs);
    await settled();
    expect(slot.status()).toMatchObject({ state: "busy", calls: 2, health: said.health, answer_ms: 0, silent_ms: 0 });
  });

  test("is known to be unknown where it does not say, which is told once and punished by nothing", async () => {
    const { clock, said, events, slot, worker } = await ready();
    said.health = undefined;
    clock.advance(4 * defaultLimits.heartbeatMs);
    await settled();
    expect(events).toEqual(["worker_started", "worker_silent"]);
    expect([slot.status().silent_ms, worker.process.killed]).toEqual([3 * defaultLimits.heartbeatMs, 0]);
  });
});
