import { describe, expect, test } from "bun:test";

import { join } from "node:path";
import type { Environment } from "../../../src/server/environments/environments.ts";
import type { Line } from "../../../src/server/line.ts";
import { Pack, type PackServices } from "../../../src/server/pack.ts";
import type { Call } from "../../../src/server/session.ts";
import type { ProcessExit } from "../../../src/server/workers/exit.ts";
import type { Worker } from "../../../src/server/workers/worker.ts";
import { ManualClock } from "../../../src/transport/clock.ts";
import type { Progress } from "../../../src/transport/control.ts";
import { AirlockError } from "../../../src/transport/errors.ts";
import { defaultLimits, type Limits } from "../../../src/transport/limits.ts";
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

/** @param joins whether host and worker can take lines. */
function newPack(joins = false, limits: Partial<Limits> = {}) {
  const clock = new ManualClock();
  const environments: {
    resolve: (made: Environment) => void;
    reject: (reason: unknown) => void;
    onProgress: (progress: Progress) => void;
    signal: AbortSignal;
  }[] = [];
  const spawned: { process: FakeProcess; worker: Worker }[] = [];
  const expected = new Set<Worker>();
  const told: string[] = [];
  const events: string[] = [];
  const reasons: AirlockError[] = [];
  let spawnFailure: AirlockError | undefined;
  const services: PackServices = {
    clock,
    limits: { ...defaultLimits, ...limits },
    onEvent: (event) => events.push(event.type),
    prepareEnvironment: (_, onProgress, signal) => {
      const { promise, resolve, reject } = Promise.withResolvers<Environment>();
      signal.addEventListener("abort", () => reject(signal.reason));
      environments.push({ resolve, reject, onProgress, signal });
      return promise;
    },
    spawn: (_, worker) => {
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
  const pack = new Pack(2, host, manifestOf("blur"), log, services);
  const submit = (number: number): Call => {
    const call = newCall(host, number, 2);
    pack.submit(call, frame("call", 2, number, []));
    return call;
  };
  /** Lets the last worker that was spawned say hello. */
  const admit = async () => {
    const last = spawned.at(-1);
    if (last === undefined) throw new Error("no worker was spawned");
    const session = newSession(10 + spawned.length, { ...workerHello, pid: last.process.pid }, pack);
    last.worker.admit(session);
    await settled();
    return { ...last, session, link: session.link as FakeLink };
  };
  /** Ends the environment's making, and lets what follows happen. */
  const made = async (index = environments.length - 1) => {
    environments[index]?.resolve(environment);
    await settled();
  };
  const refuseToSpawn = (error: AirlockError) => {
    spawnFailure = error;
  };
  return { clock, environments, spawned, expected, told, events, reasons, pack, submit, admit, made, refuseToSpawn };
}

/** A pack whose worker is ready and has been given call 1. */
async function ready(joins = false) {
  const made = newPack(joins);
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
    const { environments, spawned, expected, told, events, submit, made, admit, pack } = newPack();
    for (const number of [1, 2, 3]) submit(number);
    await made();
    submit(4);
    expect([environments.length, spawned.length, expected.size]).toEqual([1, 1, 1]);
    expect(pack.status().worker).toEqual({ pid: 100, state: "starting", calls: 4 });
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
    const { environments, told, submit } = newPack();
    submit(1);
    submit(2);
    environments[0]?.onProgress({ pack: "blur", stage: "install", message: "m" });
    expect(told).toEqual(["progress 1 install", "progress 2 install"]);
  });

  test("all fail with the reason where the environment cannot be made, and the next call tries again", async () => {
    const { environments, told, submit, spawned } = newPack();
    submit(1);
    submit(2);
    environments[0]?.reject(new AirlockError("environment_failed", "no such package"));
    await settled();
    expect(told).toEqual(["fail 1 environment_failed", "fail 2 environment_failed"]);
    submit(3);
    expect([environments.length, spawned.length]).toEqual([2, 0]);
  });

  test("all fail with exit and reason where the worker ends before its hello", async () => {
    const { told, reasons, submit, made, spawned, expected, pack } = newPack();
    submit(1);
    submit(2);
    await made();
    spawned[0]?.process.exit({ code: 3 });
    await settled();
    expect(told).toEqual([workerEnded(1), "fail 1 worker_start_failed", "fail 2 worker_start_failed"]);
    expect(reasons[0]?.details.exit).toBe("exit code 3");
    expect([expected.size, pack.status().worker]).toEqual([0, null]);
    submit(3);
    await made();
    expect(spawned).toHaveLength(2);
  });

  test("all fail where no process can be spawned", async () => {
    const { told, submit, made, refuseToSpawn, expected, clock, pack } = newPack();
    refuseToSpawn(new AirlockError("worker_start_failed", "no such interpreter"));
    submit(1);
    await made();
    expect(told).toEqual(["fail 1 worker_start_failed"]);
    expect([expected.size, pack.status().worker]).toEqual([0, null]);
    clock.advance(defaultLimits.workerStartMsMax);
  });

  test("all fail where the worker says no hello in time, and it is killed", async () => {
    const { clock, told, reasons, submit, made, spawned } = newPack();
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
    const { told, reasons, submit, environments } = newPack(false, { outboxBytesMax: 40 });
    for (const number of [1, 2, 3]) submit(number);
    expect(told).toEqual(["fail 3 limit_exceeded"]);
    expect(reasons[0]?.message).toBe("pack blur: too much waits for its worker to start; 40 bytes may");
    expect(environments).toHaveLength(1);
  });

  test("are not delivered if they were withdrawn", async () => {
    const { told, submit, made, admit, pack } = newPack();
    submit(1);
    const second = submit(2);
    pack.withdraw(second);
    await made();
    await admit();
    expect(told).toEqual(["deliver 1 to 11"]);
  });
});

describe("a worker that ends", () => {
  test("fails its calls with how it ended, and the next call starts a fresh one", async () => {
    const { told, reasons, events, worker, submit, made, admit, spawned, pack } = await ready();
    worker.process.exit({ signal: "SIGSEGV" });
    worker.worker.connectionClosed(undefined);
    await settled();
    expect(told).toEqual(["leave 11 worker_died", workerEnded(1)]);
    expect(reasons[0]?.details).toMatchObject({ pack: "blur", exit: "killed by SIGSEGV (segmentation fault)" });
    expect(events).toEqual(["worker_started", "worker_ended"]);
    expect(pack.status().worker).toBeNull();
    expect(spawned).toHaveLength(1);
    submit(2);
    await made();
    await admit();
    expect(told.at(-1)).toBe("deliver 2 to 12");
  });

  test("is told of to its host by which of the pack's workers it was", async () => {
    const { told, worker, submit, made, admit } = await ready();
    worker.process.exit({ code: 0 });
    worker.worker.connectionClosed(undefined);
    await settled();
    submit(2);
    await made();
    const second = await admit();
    told.length = 0;
    second.process.exit({ code: 0 });
    second.worker.connectionClosed(undefined);
    await settled();
    expect(told).toEqual(["leave 12 worker_died", workerEnded(2)]);
  });

  test("is waited for before the next one is spawned", async () => {
    const { worker, submit, made, spawned } = await ready();
    worker.worker.connectionClosed(undefined);
    submit(2);
    await made();
    expect(spawned).toHaveLength(1);
    worker.process.exit({ code: 0 });
    await settled();
    expect(spawned).toHaveLength(2);
  });
});

describe("closing", () => {
  test("a pack that is idle spawns and tells nothing", async () => {
    const { told, events, spawned, pack } = newPack();
    pack.close();
    await pack.ended;
    expect([told, events, spawned]).toEqual([[], [], []]);
  });

  test("while the environment is being made gives that up, and fails what waits", async () => {
    const { told, environments, submit, spawned, pack } = newPack();
    submit(1);
    pack.close();
    await settled();
    expect(environments[0]?.signal.aborted).toBe(true);
    expect(told).toEqual(["fail 1 cancelled"]);
    expect(spawned).toEqual([]);
  });

  test("while the worker starts kills it, and fails what waits with the true reason", async () => {
    const { clock, told, events, submit, made, spawned, pack } = newPack();
    submit(1);
    await made();
    pack.close();
    clock.advance(0);
    await pack.ended;
    await settled();
    expect(spawned[0]?.process.killed).toBeGreaterThan(0);
    expect(told).toEqual([workerEnded(1), "fail 1 cancelled"]);
    expect(events).toEqual(["worker_ended"]);
  });

  test("asks a ready worker to end, and kills it where it does not", async () => {
    const { clock, worker, pack, told, reasons } = await ready();
    pack.close();
    expect(worker.link.closedBy).toBe("end");
    expect(worker.process.killed).toBe(0);
    clock.advance(1000);
    expect(worker.process.killed).toBe(1);
    worker.worker.connectionClosed(undefined);
    await pack.ended;
    expect(told).toEqual(["leave 11 cancelled", workerEnded(1)]);
    expect(reasons[0]?.message).toBe("the pack blur was closed");
  });

  test("for a reason tells that reason to the calls under way", async () => {
    const { worker, pack, told } = await ready();
    pack.close(new AirlockError("server_stopping", "bye"));
    worker.process.exit({ code: 0 });
    worker.worker.connectionClosed(undefined);
    await pack.ended;
    expect(told).toEqual(["leave 11 server_stopping", workerEnded(1)]);
  });
});

describe("a line to the worker", () => {
  test("is made when the worker is ready, and ended when it has ended", async () => {
    const { pack, worker, told, submit, made, admit } = await ready(true);
    expect(pack.workerOnLine).toBe(worker.session);
    const ending = pack.ending(1);
    worker.process.exit({ signal: "SIGKILL" });
    worker.worker.connectionClosed(undefined);
    await settled();
    expect(told).toEqual(["end line 1", "leave 11 worker_died", workerEnded(1)]);
    expect((await ending).details.exit).toStartWith("killed by SIGKILL");
    expect(pack.workerOnLine).toBeUndefined();
    submit(2);
    await made();
    await admit();
    expect(told).toContain("join 12 to 2 by line 2");
    expect((await pack.ending(1)).code).toBe("worker_died");
  });

  test("that has ended ends its worker, where that lives on", async () => {
    const { pack, worker, clock, reasons } = await ready(true);
    const ending = pack.ending(1);
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
    const { pack } = await ready(true);
    expect((await pack.ending(7)).message).toContain("line 7 has ended");
  });

  test("that cannot be made leaves the relay", async () => {
    const { pack, told, submit } = await ready();
    expect(pack.workerOnLine).toBeUndefined();
    submit(2);
    expect(told).toEqual(["deliver 2 to 11"]);
  });
});

describe("a worker that does not answer", () => {
  const overdue = "ended by its host: it had not answered a call long after that was cancelled or overdue";

  test("on its line is ended when its host says so, and the reason is told", async () => {
    const { pack, worker, reasons } = await ready(true);
    pack.endOverdue(1);
    expect(worker.process.killed).toBeGreaterThan(0);
    worker.worker.connectionClosed(undefined);
    await settled();
    expect([reasons[0]?.code, reasons[0]?.details.exit]).toEqual(["worker_died", overdue]);
  });

  test("is not ended for a line that was another worker's, or never there", async () => {
    const { pack, worker } = await ready(true);
    for (const line of [0, 2]) pack.endOverdue(line);
    const relayed = await ready(false);
    relayed.pack.endOverdue(1);
    expect([worker.process.killed, relayed.worker.process.killed]).toEqual([0, 0]);
  });

  test("on the relay is ended by its session, unless another has taken its place", async () => {
    const { pack, worker, reasons } = await ready();
    pack.endWorker(newSession(99, workerHello, pack), "another's fault");
    expect(worker.process.killed).toBe(0);
    pack.endWorker(worker.session, "its own fault");
    worker.worker.connectionClosed(undefined);
    await settled();
    expect(reasons[0]?.details.exit).toBe("its own fault");
  });
});

describe("a manifest that changed", () => {
  test("is the next worker's, and the running one's host is told", async () => {
    const { pack, worker } = await ready();
    const changed = { ...manifestOf("blur"), dependencies: ["numpy"], warnings: ["own"] };
    pack.reopen(changed);
    expect(pack.manifest).toBe(changed);
    expect(pack.warnings).toEqual(["own", expect.stringContaining("was changed after the running worker (pid 100)")]);
    worker.process.exit({ code: 0 });
    worker.worker.connectionClosed(undefined);
    await settled();
    expect(pack.warnings).toEqual(["own"]);
  });

  test("in nothing is no news", async () => {
    const { pack } = await ready();
    pack.reopen(manifestOf("blur"));
    expect(pack.warnings).toEqual([]);
  });
});
