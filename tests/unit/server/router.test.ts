import { describe, expect, test } from "bun:test";
import { AirlockError } from "../../../src/transport/errors.ts";
import { type Frame, frameDeadlineMs } from "../../../src/transport/frame.ts";
import { rejectionOf, thrownBy } from "../../support/errors.ts";
import { frame, workerHello } from "../../support/peers.ts";
import { newRouter, newRouterWithPair, withCall } from "../../support/router.ts";

describe("a call", () => {
  test("reaches the worker as coming from its host, and its answer comes from the pack", () => {
    const { router, host, worker, peer } = newRouterWithPair();
    router.receive(host.session, frame("call", peer, 9, ["run", ["Blur"], {}]));
    const [delivered] = worker.link.take();
    expect(delivered).toEqual({ kind: "call", peer: host.session.peer, call: 1, body: ["run", ["Blur"], {}] });
    router.receive(worker.session, frame("progress", host.session.peer, 1, { done: 1 }));
    router.receive(worker.session, frame("result", host.session.peer, 1, [42]));
    expect(host.link.take()).toEqual([
      { kind: "progress", peer, call: 9, body: { done: 1 } },
      { kind: "result", peer, call: 9, body: [42] },
    ]);
    expect([host.session.made.size, worker.session.callsOwed]).toEqual([0, 0]);
  });

  test("that fails is answered with the worker's error", () => {
    const { router, host, worker, peer, id } = withCall();
    router.receive(worker.session, frame("error", 0, id, { code: "remote_exception", message: "m" }));
    expect(host.link.take()).toEqual([{ kind: "error", peer, call: 9, body: "remote_exception" }]);
  });

  test("to a pack that the host has not opened fails by name, another host's included", () => {
    const { router, join, peer } = withCall();
    const stranger = join();
    router.receive(stranger.session, frame("call", peer, 1, []));
    router.receive(stranger.session, frame("call", 4000, 2, []));
    expect(stranger.link.take().map(({ body }) => body)).toEqual(["pack_not_open", "pack_not_open"]);
    expect(stranger.session.made.size).toBe(0);
  });

  test("to the server is control's to answer", () => {
    const { router, join, control } = newRouter();
    const host = join();
    router.receive(host.session, frame("call", 0, 3, ["status", [], {}]));
    const [call] = control;
    if (call === undefined) return expect.unreachable();
    router.progress(call, { pack: "p", stage: "s", message: "cut \ud83d" });
    router.answer(call, { ok: true });
    router.answer(call, "not twice");
    expect(host.link.take()).toEqual([
      { kind: "progress", peer: 0, call: 3, body: { pack: "p", stage: "s", message: "cut \ufffd" } },
      { kind: "result", peer: 0, call: 3, body: { ok: true } },
    ]);
  });

  test("to the server is answered also where the answer cannot cross", () => {
    const { router, join, control } = newRouter();
    const host = join();
    for (const number of [3, 4]) router.receive(host.session, frame("call", 0, number, []));
    const [one, two] = control;
    if (one === undefined || two === undefined) return expect.unreachable();
    router.answer(one, { name: "half a pair: \ud83d" });
    router.fail(two, new AirlockError("environment_failed", "cut \ud83d", { log: "\udca9 cut", hint: "h" }));
    expect(host.link.sent.map(({ call, body }) => [call, body])).toEqual([
      [3, expect.objectContaining({ code: "value_unsupported" })],
      [4, { code: "environment_failed", message: "cut \ufffd", log: "\ufffd cut", hint: "h" }],
    ]);
  });

  test("that waited for its worker arrives with the time that it has left", () => {
    const { router, clock, host, pack, peer, worker } = newRouterWithPair();
    pack.worker = undefined;
    router.receive(host.session, frame("call", peer, 1, [], { deadlineMs: 1000 }));
    router.receive(host.session, frame("call", peer, 2, []));
    clock.advance(400);
    const sent: (number | undefined)[] = [];
    worker.session.link.send = (delivered) => void sent.push(frameDeadlineMs(delivered));
    for (const waiting of pack.waiting) router.deliver(waiting.call, waiting.frame, worker.session);
    expect(sent).toEqual([600, undefined]);
  });

  test("is refused while the server stops, and those under way go on", () => {
    const { router, host, worker, peer, id } = withCall();
    router.stopTakingCalls();
    router.receive(host.session, frame("call", peer, 10, []));
    router.receive(worker.session, frame("result", 0, id, 1));
    expect(host.link.take().map(({ call, body }) => [call, body])).toEqual([
      [10, "server_stopping"],
      [9, 1],
    ]);
    expect(router.callsWaitedFor).toBe(0);
  });

  test("that fails says so where nobody was given it", () => {
    const { router, clock, control, host, worker, pack, peer } = newRouterWithPair();
    const delivered = (): unknown[] => host.link.sent.splice(0).map(({ call, body }) => [call, Object(body).delivered]);
    router.receive(host.session, frame("call", peer + 99, 1, []));
    router.receive(host.session, frame("call", peer, 2, []));
    router.receive(host.session, frame("call", peer, 3, [], { deadlineMs: 100 }));
    clock.advance(100);
    worker.session.isGone = true;
    router.receive(host.session, frame("call", peer, 4, []));
    pack.worker = undefined;
    router.receive(host.session, frame("call", peer, 5, [], { deadlineMs: 100 }));
    router.receive(host.session, frame("call", peer, 6, []));
    clock.advance(100);
    for (const { call } of pack.waiting) router.fail(call, new AirlockError("worker_start_failed", "no worker"));
    router.leave(worker.session, new AirlockError("worker_died", "it ended"));
    router.receive(host.session, frame("call", 0, 8, []));
    for (const call of control) router.fail(call, new AirlockError("server_stopping", "no more"));
    expect(delivered()).toEqual([
      [1, false],
      [3, undefined],
      [4, false],
      [5, false],
      [6, false],
      [2, undefined],
      [8, undefined],
    ]);
  });

  test("that is cancelled is not answered, and the worker is told", () => {
    const { router, host, worker, peer, id } = withCall();
    router.receive(host.session, frame("cancel", peer, 9));
    router.receive(host.session, frame("cancel", peer, 9));
    expect(worker.link.take()).toEqual([{ kind: "cancel", peer: host.session.peer, call: id, body: undefined }]);
    router.receive(worker.session, frame("progress", 0, id, {}));
    router.receive(worker.session, frame("error", 0, id, { code: "cancelled", message: "m" }));
    expect(host.link.take()).toEqual([]);
    expect(worker.session.callsOwed).toBe(0);
  });

  test("that was cancelled frees its number for the next one", () => {
    const { router, host, worker, peer, id } = withCall();
    router.receive(host.session, frame("cancel", peer, 9));
    router.receive(host.session, frame("call", peer, 9, ["again"]));
    router.receive(worker.session, frame("result", 0, id, "late"));
    router.receive(worker.session, frame("result", 0, id + 1, "in time"));
    expect(host.link.take().map(({ body }) => body)).toEqual(["in time"]);
  });

  test("that is overdue fails at its caller, is cancelled at its callee, and its late answer is dropped", () => {
    const { router, clock, host, worker, peer, id } = withCall(100);
    clock.advance(99);
    expect(host.link.take()).toEqual([]);
    clock.advance(1);
    expect(host.link.sent[0]?.body).toMatchObject({
      message: "pack blur: the call took longer than its deadline of 100 ms",
      pack: "blur",
    });
    expect(host.link.take()).toEqual([{ kind: "error", peer, call: 9, body: "deadline_exceeded" }]);
    expect(worker.link.take().map(({ kind, call }) => [kind, call])).toEqual([["cancel", id]]);
    router.receive(worker.session, frame("result", 0, id, 1));
    expect(host.link.take()).toEqual([]);
  });

  test("that was answered in time is never overdue", () => {
    const { router, clock, host, worker, id } = withCall(100);
    router.receive(worker.session, frame("result", 0, id, 1));
    clock.advance(1000);
    expect(host.link.take().map(({ kind }) => kind)).toEqual(["result"]);
  });

  test("that waits for a worker is withdrawn when it is cancelled or overdue", () => {
    const { router, clock, host, worker, pack, peer } = newRouterWithPair();
    pack.worker = undefined;
    router.receive(host.session, frame("call", peer, 1, []));
    router.receive(host.session, frame("call", peer, 2, [], { deadlineMs: 50 }));
    router.receive(host.session, frame("cancel", peer, 1));
    clock.advance(50);
    expect(pack.waiting).toEqual([]);
    expect(host.link.take()).toEqual([{ kind: "error", peer, call: 2, body: "deadline_exceeded" }]);
    expect(worker.link.take()).toEqual([]);
  });

  test("that was abandoned is not delivered", () => {
    const { router, host, worker, pack, peer } = newRouterWithPair();
    pack.worker = undefined;
    router.receive(host.session, frame("call", peer, 1, []));
    const [waiting] = pack.waiting;
    if (waiting === undefined) return expect.unreachable();
    router.receive(host.session, frame("cancel", peer, 1));
    router.deliver(waiting.call, waiting.frame, worker.session);
    expect([worker.link.take(), worker.session.callsOwed]).toEqual([[], 0]);
  });
});

describe("a peer breaks the protocol", () => {
  test.each<[string, "host" | "worker" | "other", (id: number) => Frame]>([
    ["answering a call that nobody made", "worker", (id) => frame("result", 0, id + 1, 1)],
    ["answering a call that somebody else was given", "other", (id) => frame("result", 0, id, 1)],
    [
      "failing a call that somebody else was given",
      "other",
      (id) => frame("error", 0, id, { code: "cancelled", message: "m" }),
    ],
    ["telling of a call that somebody else was given", "other", (id) => frame("progress", 0, id, {})],
    ["answering its own call", "host", (id) => frame("result", 0, id, 1)],
    ["making a call 0", "host", () => frame("call", 0, 0, [])],
    ["using a call number twice", "host", () => frame("call", 0, 9, [])],
    ["saying hello again", "host", () => frame("hello", 0, 0, {})],
    ["sending a welcome", "worker", () => frame("welcome", 0, 0, {})],
  ])("by %s, and nobody else notices", (_, who, fault) => {
    const made = withCall();
    const other = made.join(workerHello);
    const from = { host: made.host, worker: made.worker, other }[who];
    expect(thrownBy(() => made.router.receive(from.session, fault(made.id))).code).toBe("protocol_error");
    made.router.receive(made.worker.session, frame("result", 0, made.id, "sound"));
    expect(made.host.link.take().map(({ body }) => body)).toEqual(["sound"]);
  });

  test("but not by answering twice as fast as it is cancelled", () => {
    const { router, host, worker, peer, id } = withCall();
    router.receive(worker.session, frame("result", 0, id, 1));
    expect(() => router.receive(host.session, frame("cancel", peer, 9))).not.toThrow();
    expect(worker.link.take()).toEqual([]);
  });
});

describe("a peer that is gone", () => {
  const cause = new AirlockError("worker_died", "killed");

  test("as a host abandons its calls, and its workers are told", () => {
    const { router, host, worker, id } = withCall();
    router.leave(host.session, cause);
    expect(worker.link.take().map(({ kind, call }) => [kind, call])).toEqual([["cancel", id]]);
    router.receive(worker.session, frame("result", 0, id, 1));
    expect(host.link.take()).toEqual([]);
  });

  test("as a worker fails each of its calls once", () => {
    const { router, host, worker, peer } = withCall();
    router.receive(host.session, frame("call", peer, 10, []));
    router.receive(host.session, frame("call", peer, 11, []));
    router.receive(host.session, frame("cancel", peer, 11));
    router.leave(worker.session, cause);
    router.leave(worker.session, cause);
    expect(host.link.take().map(({ call, body }) => [call, body])).toEqual([
      [9, "worker_died"],
      [10, "worker_died"],
    ]);
    expect(router.callsWaitedFor).toBe(0);
  });
});

describe("a question of the server's own to a worker", () => {
  test("is answered like any other, and is nobody's call that is waited for", async () => {
    const { router, worker } = newRouterWithPair();
    const asked = router.ask(worker.session, "idle");
    const [sent] = worker.link.take();
    expect(sent).toEqual({ kind: "call", peer: 0, call: 1, body: ["idle", [], {}] });
    expect([router.callsWaitedFor, router.callsHeld, router.callsOf(worker.session)]).toEqual([0, 1, 0]);
    router.receive(worker.session, frame("result", 0, 1, { calls: 3 }));
    expect(await asked).toEqual({ calls: 3 });
    expect(router.callsHeld).toBe(0);
  });

  test("fails as the worker says, or with why it is gone", async () => {
    const { router, worker } = newRouterWithPair();
    const [asked, again] = ["idle", "health"].map((method) => rejectionOf(router.ask(worker.session, method)));
    router.receive(worker.session, frame("error", 0, 1, { code: "bad_request", message: "what?" }));
    router.leave(worker.session, new AirlockError("worker_died", "killed"));
    expect([(await asked)?.message, (await again)?.message]).toEqual(["what?", "killed"]);
    expect((await rejectionOf(router.ask(worker.session, "idle"))).code).toBe("disconnected");
  });

  test("is given up after the time that it is given, and its late answer harms nobody", async () => {
    const { router, worker, clock } = newRouterWithPair();
    const asked = rejectionOf(router.ask(worker.session, "health", 500));
    clock.advance(500);
    expect((await asked).code).toBe("deadline_exceeded");
    expect(worker.link.take().map(({ kind }) => kind)).toEqual(["call"]);
    router.receive(worker.session, frame("result", 0, 1, {}));
    expect(router.callsHeld).toBe(0);
  });

  test("that is answered with more than the server reads of anybody fails", async () => {
    const { router, worker } = newRouterWithPair({ controlBytesMax: 100 });
    const asked = rejectionOf(router.ask(worker.session, "health"));
    router.receive(worker.session, frame("result", 0, 1, new Uint8Array(101)));
    expect((await asked).code).toBe("limit_exceeded");
  });
});

test("numbers of peers and packs are never given twice", () => {
  const { router, join } = newRouter();
  const numbers = [join().session.peer, router.nextPeer(), join().session.peer, router.nextPeer()];
  const { session } = join();
  router.leave(session, new AirlockError("disconnected", "gone"));
  numbers.push(session.peer, join().session.peer);
  expect(new Set(numbers).size).toBe(numbers.length);
  expect(numbers).not.toContain(0);
});
