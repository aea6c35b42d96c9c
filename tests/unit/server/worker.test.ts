import { describe, expect, test } from "bun:test";
import type { ProcessExit } from "../../../src/server/workers/exit.ts";
import { Worker } from "../../../src/server/workers/worker.ts";
import { ManualClock } from "../../../src/transport/clock.ts";
import { AirlockError } from "../../../src/transport/errors.ts";
import { type FakeLink, settled, workerHello } from "../../support/peers.ts";
import { newSession } from "../../support/sessions.ts";

function newWorker() {
  const clock = new ManualClock();
  const exited = Promise.withResolvers<ProcessExit>();
  const killed: number[] = [];
  const worker = new Worker(clock);
  const ends: string[] = [];
  const process = {
    pid: 42,
    exited: exited.promise,
    crashStack: undefined,
    dumpStacks: async () => "its stacks",
    kill: () => void killed.push(clock.nowMs()),
  };
  void worker.supervise(process).then((exit) => ends.push(exit));
  const session = newSession(3, workerHello);
  const link = session.link as FakeLink;
  const admit = () => worker.admit(session);
  const exit = async (how: Partial<ProcessExit>) => {
    exited.resolve({ code: null, signal: null, ...how });
    await settled();
  };
  return { clock, worker, killed, ends, link, admit, exit };
}

test("one that was given up before there was a process is killed as soon as there is one", async () => {
  const worker = new Worker(new ManualClock());
  worker.kill("no hello within 60 s");
  const exited = Promise.withResolvers<ProcessExit>();
  const end = worker.supervise({
    pid: 42,
    exited: exited.promise,
    crashStack: undefined,
    dumpStacks: async () => "its stacks",
    kill: () => exited.resolve({ code: null, signal: "SIGKILL" }),
  });
  expect(await end).toBe("no hello within 60 s");
});

test("a token is long, and no two workers have the same", () => {
  const tokens = Array.from({ length: 100 }, () => new Worker(new ManualClock()).token);
  expect(new Set(tokens).size).toBe(100);
  for (const token of tokens) expect(token).toMatch(/^[\w-]{32}$/);
});

describe("a worker", () => {
  test("is ready from its hello until its connection closes", async () => {
    const { worker, admit } = newWorker();
    expect([worker.ready, worker.session]).toEqual([undefined, undefined]);
    admit();
    expect(worker.ready).toBe(await worker.admitted);
    worker.connectionClosed(undefined);
    expect(worker.ready).toBeUndefined();
    expect(worker.session).toBeDefined();
  });

  test("that never said hello ends with its process", async () => {
    const { ends, exit } = newWorker();
    await exit({ code: 1 });
    expect(ends).toEqual(["exit code 1"]);
  });

  test("that a limit has ended says which, unless it was ended for something else first", async () => {
    const exceeded = { what: "memory 8.3 GiB of 8 GiB", source: "limits.memory" };
    const over = newWorker();
    await over.exit({ signal: "SIGKILL", exceeded });
    expect([over.ends, over.worker.exceeded]).toEqual([["over its limit: memory 8.3 GiB of 8 GiB"], exceeded]);
    const overdue = newWorker();
    overdue.worker.kill("it did not answer");
    await overdue.exit({ signal: "SIGKILL", exceeded });
    expect([overdue.ends, overdue.worker.exceeded]).toEqual([["it did not answer"], undefined]);
  });

  test("ends once both its process and its connection have ended, so that its last answers arrive", async () => {
    const { worker, ends, admit, exit } = newWorker();
    admit();
    await exit({ code: 0 });
    expect(ends).toEqual([]);
    worker.connectionClosed(undefined);
    await settled();
    expect(ends).toEqual(["exit code 0"]);
  });

  test("whose connection outlives it, in a child that it forked, is cut off", async () => {
    const { clock, worker, link, admit, exit, ends } = newWorker();
    admit();
    await exit({ code: 0 });
    clock.advance(249);
    expect(link.closedBy).toBeUndefined();
    clock.advance(1);
    expect(link.closedBy).toBe("abort");
    worker.connectionClosed(undefined);
    await settled();
    expect(ends).toEqual(["exit code 0"]);
  });

  test("that closed its connection may exit by itself, for a while", async () => {
    const { clock, worker, admit, killed } = newWorker();
    admit();
    worker.connectionClosed(undefined);
    clock.advance(2999);
    expect(killed).toEqual([]);
    clock.advance(1);
    expect(killed).toEqual([3000]);
  });

  test("that broke the protocol is killed at once, and that is the reason told", async () => {
    const { worker, admit, killed, exit, ends } = newWorker();
    admit();
    worker.connectionClosed(new AirlockError("protocol_error", "unknown frame kind 99"));
    expect(killed).toEqual([0]);
    await exit({ signal: "SIGKILL" });
    expect(ends).toEqual(["ended by the server: unknown frame kind 99"]);
  });

  test("that is killed for a reason keeps the first one", async () => {
    const { worker, exit, ends } = newWorker();
    worker.kill("no hello within 60 s");
    worker.kill("another");
    worker.kill();
    await exit({ signal: "SIGKILL" });
    expect(ends).toEqual(["no hello within 60 s"]);
  });

  test("that is stopped is asked first, and killed after its grace", () => {
    const { clock, worker, link, admit, killed } = newWorker();
    admit();
    worker.stop(300);
    expect([link.closedBy, worker.ready]).toEqual(["end", undefined]);
    clock.advance(299);
    expect(killed).toEqual([]);
    clock.advance(1);
    expect(killed).toEqual([300]);
  });

  test("that is stopped before its hello has nothing to say goodbye on", () => {
    const { clock, worker, killed } = newWorker();
    worker.stop(300);
    clock.advance(0);
    expect(killed).toEqual([0]);
  });
});
