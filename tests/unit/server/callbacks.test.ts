/** Calls of a worker to its host, and calls that are made for others, in both directions. */
import { describe, expect, test } from "bun:test";
import { AirlockError } from "../../../src/transport/errors.ts";
import { thrownBy } from "../../support/errors.ts";
import { frame, workerHello } from "../../support/peers.ts";
import { newRouterWithPair, withCall } from "../../support/router.ts";

describe("a worker's call to its host", () => {
  test("comes from its pack, and its answer from the host", () => {
    const { router, host, worker, peer } = newRouterWithPair();
    router.receive(worker.session, frame("call", host.session.peer, 5, ["ref_call", [1], {}]));
    const [delivered] = host.link.take();
    expect(delivered).toEqual({ kind: "call", peer, call: 1, body: ["ref_call", [1], {}] });
    router.receive(host.session, frame("progress", peer, 1, { done: 1 }));
    router.receive(host.session, frame("result", peer, 1, 42));
    expect(worker.link.take()).toEqual([
      { kind: "progress", peer: host.session.peer, call: 5, body: { done: 1 } },
      { kind: "result", peer: host.session.peer, call: 5, body: 42 },
    ]);
    expect([worker.session.made.size, host.session.callsOwed, router.callsHeld]).toEqual([0, 0, 0]);
  });

  test("that fails is answered with the host's error", () => {
    const { router, host, worker, peer } = newRouterWithPair();
    router.receive(worker.session, frame("call", host.session.peer, 5, []));
    router.receive(host.session, frame("error", peer, 1, { code: "reference_gone", message: "m" }));
    expect(worker.link.take()).toEqual([{ kind: "error", peer: host.session.peer, call: 5, body: "reference_gone" }]);
  });

  test("is cancelled like any, and the host's late answer is dropped", () => {
    const { router, host, worker, peer } = newRouterWithPair();
    router.receive(worker.session, frame("call", host.session.peer, 5, []));
    router.receive(worker.session, frame("cancel", host.session.peer, 5));
    expect(host.link.take().slice(1)).toEqual([{ kind: "cancel", peer, call: 1, body: undefined }]);
    router.receive(host.session, frame("result", peer, 1, 42));
    expect([worker.link.take(), router.callsHeld]).toEqual([[], 0]);
  });

  test("that is overdue fails at the worker, and is cancelled at the host, who is never ended for it", () => {
    const { router, clock, host, worker, peer, pack } = newRouterWithPair();
    router.receive(worker.session, frame("call", host.session.peer, 5, [], { deadlineMs: 100 }));
    clock.advance(100);
    expect(worker.link.sent[0]?.body).toEqual({
      code: "deadline_exceeded",
      message: "the call took longer than its deadline of 100 ms",
    });
    clock.advance(60_000);
    expect(host.link.take().map(({ kind, peer: from }) => [kind, from])).toEqual([
      ["call", peer],
      ["cancel", peer],
    ]);
    expect(pack.verdicts).toEqual([]);
  });

  test.each([
    ["another host", "other"],
    ["a pack, its own included", "pack"],
    ["itself", "self"],
    ["nobody", "nobody"],
  ] as const)("to %s is refused, and that call alone", (_, whom) => {
    const { router, host, worker, join, peer } = newRouterWithPair();
    const other = join();
    const numbers = { other: other.session.peer, pack: peer, self: worker.session.peer, nobody: 4000 };
    router.receive(worker.session, frame("call", numbers[whom], 5, []));
    const message = expect.stringContaining(`its host (peer ${host.session.peer}) alone`);
    expect(worker.link.sent[0]).toMatchObject({
      kind: "error",
      peer: numbers[whom],
      call: 5,
      body: { code: "unauthorized", message },
    });
    expect([other.link.take(), host.link.take(), router.callsHeld]).toEqual([[], [], 0]);
  });

  test("does not share its numbers with the host's", () => {
    const { router, host, worker, id } = withCall();
    router.receive(worker.session, frame("call", host.session.peer, 9, []));
    const [back] = host.link.take();
    router.receive(worker.session, frame("result", host.session.peer, id, "the host's"));
    router.receive(host.session, frame("result", 0, back?.call ?? 0, "the worker's"));
    expect([host.link.take(), worker.link.take()].map(([only]) => only?.body)).toEqual(["the host's", "the worker's"]);
  });
});

describe("a call that is made for another", () => {
  test("names that one by the number that its addressee gave it, to any depth", () => {
    const { router, host, worker, peer, id } = withCall();
    const calls = [{ at: worker, to: host.session.peer, parent: id, named: 9 }];
    for (let depth = 1; depth < 5; depth++) {
      const { at, to, parent, named } = calls.at(-1) ?? expect.unreachable();
      const other = at === worker ? host : worker;
      const number = 100 + depth;
      router.receive(at.session, frame("call", to, number, depth, { parent, deadlineMs: 500 }));
      const [delivered] = other.link.take();
      expect([delivered?.body, delivered?.parent]).toEqual([depth, named]);
      const back = at === worker ? peer : host.session.peer;
      calls.push({ at: other, to: back, parent: delivered?.call ?? 0, named: number });
    }
  });

  test.each([
    ["answered", "result"],
    ["failed", "error"],
  ] as const)("that was %s already is cancelled", (_, kind) => {
    const { router, host, worker, id } = withCall();
    router.receive(worker.session, frame(kind, host.session.peer, id, { code: "cancelled", message: "m" }));
    host.link.take();
    router.receive(worker.session, frame("call", host.session.peer, 5, [], { parent: id }));
    expect(worker.link.take()).toEqual([{ kind: "error", peer: host.session.peer, call: 5, body: "cancelled" }]);
    expect([host.link.take(), router.callsHeld]).toEqual([[], 0]);
  });

  test("that was given up, which may cross it, is cancelled", () => {
    const { router, host, worker, peer, id } = withCall();
    router.receive(host.session, frame("cancel", peer, 9));
    worker.link.take();
    router.receive(worker.session, frame("call", host.session.peer, 5, [], { parent: id }));
    expect(worker.link.take().map(({ body }) => body)).toEqual(["cancelled"]);
    expect(host.link.take()).toEqual([]);
  });

  test("whose worker has ended is cancelled, though the next one waits for calls", () => {
    const { router, host, worker, peer, pack, startWorker } = newRouterWithPair();
    router.receive(worker.session, frame("call", host.session.peer, 5, []));
    pack.worker = undefined;
    const parent = host.link.take()[0]?.call ?? 0;
    router.receive(host.session, frame("call", peer, 1, [], { parent }));
    const next = startWorker(pack);
    router.receive(host.session, frame("call", peer, 2, [], { parent }));
    expect(host.link.take().map(({ call, body }) => [call, body])).toEqual([
      [1, "cancelled"],
      [2, "cancelled"],
    ]);
    expect(next.link.take()).toEqual([]);
  });

  test("is carried out though the server takes no new calls, as the one that it is for goes on", () => {
    const { router, host, worker, id } = withCall();
    router.stopTakingCalls();
    router.receive(worker.session, frame("call", host.session.peer, 5, [], { parent: id }));
    router.receive(worker.session, frame("call", host.session.peer, 6, []));
    expect(host.link.take().map(({ kind, parent }) => [kind, parent])).toEqual([["call", 9]]);
    expect(worker.link.take().map(({ call, body }) => [call, body])).toEqual([[6, "server_stopping"]]);
  });

  test("that somebody else was given breaks the protocol", () => {
    const { router, host, worker, id, joinPair } = withCall();
    const stranger = joinPair();
    const call = frame("call", stranger.host.session.peer, 5, [], { parent: id });
    expect(thrownBy(() => router.receive(stranger.worker.session, call)).code).toBe("protocol_error");
    router.leave(stranger.worker.session, new AirlockError("protocol_error", "ended"));
    router.receive(worker.session, frame("result", host.session.peer, id, "sound"));
    expect(host.link.take().map(({ body }) => body)).toEqual(["sound"]);
    expect(router.callsHeld).toBe(0);
  });

  test("that the addressee did not ask for breaks the protocol", () => {
    const { router, host, worker, openPack, startWorker } = newRouterWithPair();
    const other = openPack(host);
    startWorker(other);
    router.receive(worker.session, frame("call", host.session.peer, 5, []));
    const parent = host.link.take()[0]?.call ?? 0;
    const fault = thrownBy(() => router.receive(host.session, frame("call", other.peer, 1, [], { parent })));
    expect([fault.code, fault.message]).toEqual([
      "protocol_error",
      `call 1 names as its parent call ${parent}, which peer ${other.peer} did not ask of this peer`,
    ]);
  });

  test("that it made itself, or that waits for a worker, breaks the protocol", () => {
    for (const waits of [false, true]) {
      const { router, host, worker, pack, peer } = newRouterWithPair();
      if (waits) pack.worker = undefined;
      router.receive(host.session, frame("call", peer, 9, []));
      const from = waits ? worker : host;
      const to = waits ? host.session.peer : peer;
      const fault = () => router.receive(from.session, frame("call", to, 10, [], { parent: 1 }));
      expect(thrownBy(fault).code).toBe("protocol_error");
    }
  });

  test("is not the server's to carry out, which asks nothing of hosts", () => {
    const { router, host, worker } = newRouterWithPair();
    router.receive(worker.session, frame("call", host.session.peer, 5, []));
    const parent = host.link.take()[0]?.call ?? 0;
    const fault = () => router.receive(host.session, frame("call", 0, 1, ["status", [], {}], { parent }));
    expect(thrownBy(fault).code).toBe("protocol_error");
  });
});

describe("a peer that is gone while calls go both ways", () => {
  const cause = new AirlockError("worker_died", "killed");

  test("as a host: the worker's calls fail, and its own are cancelled, each once", () => {
    const { router, host, worker, id } = withCall();
    router.receive(worker.session, frame("call", host.session.peer, 5, []));
    router.leave(host.session, new AirlockError("disconnected", "the host is gone"));
    router.leave(host.session, new AirlockError("disconnected", "the host is gone"));
    expect(worker.link.take().map(({ kind, call, body }) => [kind, call, body])).toEqual([
      ["cancel", id, undefined],
      ["error", 5, "disconnected"],
    ]);
    router.receive(worker.session, frame("call", host.session.peer, 6, []));
    expect(worker.link.take().map(({ call, body }) => [call, body])).toEqual([[6, "disconnected"]]);
    router.receive(worker.session, frame("result", host.session.peer, id, 1));
    expect(router.callsHeld).toBe(0);
  });

  test("as a worker: the host's calls fail, and the worker's are cancelled at the host, each once", () => {
    const { router, host, worker, peer } = withCall();
    router.receive(worker.session, frame("call", host.session.peer, 5, []));
    const back = host.link.take()[0]?.call ?? 0;
    router.leave(worker.session, cause);
    router.leave(worker.session, cause);
    expect(host.link.take().map(({ kind, peer: from, call, body }) => [kind, from, call, body])).toEqual([
      ["cancel", peer, back, undefined],
      ["error", peer, 9, "worker_died"],
    ]);
    router.receive(host.session, frame("result", peer, back, 1));
    expect([worker.link.take(), router.callsHeld]).toEqual([[], 0]);
  });
});

test("an answer that comes too late goes on if it holds references, under no call's number", () => {
  const { router, host, worker, peer, id } = withCall();
  router.receive(host.session, frame("cancel", peer, 9));
  router.receive(host.session, frame("call", peer, 9, ["another"]));
  const [, again] = worker.link.take();
  for (const hasReferences of [false, true]) {
    router.receive(worker.session, frame("progress", host.session.peer, id, [hasReferences], { hasReferences }));
  }
  router.receive(worker.session, frame("error", host.session.peer, id, { code: "cancelled" }, { hasReferences: true }));
  expect(host.link.sent.splice(0)).toEqual([
    { kind: "result", peer, call: 0, body: [true] },
    { kind: "result", peer, call: 0, body: { code: "cancelled" } },
  ]);
  router.receive(worker.session, frame("result", host.session.peer, again?.call ?? 0, "in time"));
  expect(host.link.take()).toEqual([{ kind: "result", peer, call: 9, body: "in time" }]);
  expect(router.callsHeld).toBe(0);
});

test("a worker that was let in for a pack is known by the pack's number, and a host by its own", () => {
  const { host, worker, join, peer, pack } = newRouterWithPair();
  expect([host.session.knownAs, worker.session.knownAs]).toEqual([host.session.peer, peer]);
  expect(join(workerHello, pack).session.knownAs).toBe(peer);
});
