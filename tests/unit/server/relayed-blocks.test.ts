/** Frames that name blocks of segments, on their way through the router. */
import { describe, expect, test } from "bun:test";
import { AirlockError } from "../../../src/transport/errors.ts";
import type { Attachment } from "../../../src/transport/frame.ts";
import type { Limits } from "../../../src/transport/limits.ts";
import { thrownBy } from "../../support/errors.ts";
import {
  frame,
  hostHello,
  payingHello,
  type Sent,
  sharingHello,
  sharingWorkerHello,
  workerHello,
} from "../../support/peers.ts";
import { newRouter } from "../../support/router.ts";

const page = 4096;
const died = new AirlockError("worker_died", "it ended");

/** A host and a worker that take segments, each with a segment of 8 pages that the other one was passed. */
function newScene(limits: Partial<Limits> = {}) {
  const made = newRouter(limits);
  const pair = made.joinPair(sharingHello, sharingWorkerHello);
  const { segments } = made;
  const { host, worker, peer } = pair;
  /** A segment that was shared. */
  const shared = (owner: typeof host, to = owner === host ? peer : host.session.peer): number => {
    const number = segments.make(owner.session, 8 * page);
    segments.seal(owner.session, number);
    segments.share(owner.session, number, to);
    return number;
  };
  const [ofHost, ofWorker] = [shared(host), shared(worker)];
  for (const each of [host, worker]) each.lane.take();
  return { ...made, ...pair, ofHost, ofWorker, shared };
}

function block(segment: number, page = 1, pages = 2, generation = 7): Attachment {
  return { segment, page, pages, generation };
}

function named(sent: readonly Sent[]): unknown[] {
  return sent.map(({ kind, call, attachments }) => [kind, call, ...(attachments ?? [])]);
}

/** What a test compares an attachment of {@link block} with. */
const wire = (segment: number) => [segment, 1, 2, 7];

describe("blocks cross", () => {
  test("with a call, its progress and its answer, both ways", () => {
    const { router, host, worker, peer, ofHost, ofWorker } = newScene();
    router.receive(host.session, frame("call", peer, 9, [], { attachments: [block(ofHost), block(ofWorker)] }));
    const sent = worker.link.take();
    expect(named(sent)).toEqual([["call", 1, wire(ofHost), wire(ofWorker)]]);
    const to = host.session.peer;
    router.receive(worker.session, frame("progress", to, 1, {}, { attachments: [block(ofWorker)] }));
    router.receive(worker.session, frame("call", to, 5, [], { parent: 1, attachments: [block(ofWorker)] }));
    expect(named(host.link.take())).toEqual([
      ["progress", 9, wire(ofWorker)],
      ["call", 2, wire(ofWorker)],
    ]);
    router.receive(host.session, frame("result", peer, 2, 1, { attachments: [block(ofHost)] }));
    router.receive(worker.session, frame("result", to, 1, 1, { attachments: [block(ofHost), block(ofHost)] }));
    router.receive(worker.session, frame("event", to, 0, ["e", 1], { attachments: [block(ofWorker)] }));
    expect(named(worker.link.take())).toEqual([["result", 5, wire(ofHost)]]);
    expect(named(host.link.take())).toEqual([
      ["result", 9, wire(ofHost), wire(ofHost)],
      ["event", 0, wire(ofWorker)],
    ]);
    expect([host.lane.take(), worker.lane.take()]).toEqual([[], []]);
  });

  test("and go back, as memory is asked for, without an account of either", () => {
    const { router, host, worker, peer, ofHost } = newScene();
    const attachments = [block(ofHost), block(ofHost)];
    router.receive(worker.session, frame("return", host.session.peer, 0, undefined, { attachments }));
    router.receive(host.session, frame("reclaim", peer, 0));
    expect(host.link.take()).toEqual([
      { kind: "return", peer, call: 0, body: undefined, attachments: [wire(ofHost), wire(ofHost)] },
    ]);
    expect(worker.link.take()).toEqual([{ kind: "reclaim", peer: host.session.peer, call: 0, body: undefined }]);
  });

  test("to a worker that began later, which is passed their segments first, once", () => {
    const { router, segments, host, pack, worker, peer, ofHost, startWorker } = newScene();
    router.leave(worker.session, died);
    pack.worker = undefined;
    router.receive(host.session, frame("call", peer, 1, [], { attachments: [block(ofHost)] }));
    router.receive(host.session, frame("call", peer, 2, [], { attachments: [block(ofHost)] }));
    const next = startWorker(pack, sharingWorkerHello);
    expect(next.lane.take()).toEqual([ofHost]);
    expect(named(next.link.take()).map((each) => (each as unknown[]).at(-1))).toEqual([wire(ofHost), wire(ofHost)]);
    expect(segments.find(ofHost)?.holders.get(next.session)).toBe(true);
    expect(named(host.link.take())).toEqual([]);
  });

  test("also to who has closed its copy, which is passed another", () => {
    const { router, segments, host, worker, ofWorker } = newScene();
    segments.drop(host.session, ofWorker);
    router.receive(worker.session, frame("event", host.session.peer, 0, ["e", 1], { attachments: [block(ofWorker)] }));
    expect([host.lane.take(), named(host.link.take())]).toEqual([[ofWorker], [["event", 0, wire(ofWorker)]]]);
  });
});

describe("a peer breaks the protocol that", () => {
  const cases: readonly (readonly [string, (scene: ReturnType<typeof newScene>) => Attachment, string])[] = [
    ["names a segment that there never was", () => block(77), "segment 77, which there is not"],
    [
      "names one that it was not passed",
      ({ segments, join }) => block(segments.make(join(sharingHello).session, 8 * page)),
      "was not passed",
    ],
    [
      "names one that is not sealed",
      ({ segments, host }) => block(segments.make(host.session, 8 * page)),
      "is not sealed",
    ],
    [
      "names one of its own that it has not shared",
      ({ segments, host }) => {
        const number = segments.make(host.session, 8 * page);
        segments.seal(host.session, number);
        return block(number);
      },
      "was not shared with peer",
    ],
    ["names pages beyond the end", ({ ofHost }) => block(ofHost, 7, 2), "pages 7 to 9 of segment 1, which has 8"],
    ["names pages that no u32 adds up to", ({ ofHost }) => block(ofHost, 0xffff_ffff, 0xffff_ffff), "which has 8"],
  ];

  test.each(cases)("%s", (_, bad, words) => {
    const scene = newScene();
    const { router, host, worker, peer, ofHost } = scene;
    const attachments = [block(ofHost), bad(scene)];
    for (const kind of ["call", "event"] as const) {
      const number = kind === "call" ? 1 : 0;
      const error = thrownBy(() => router.receive(host.session, frame(kind, peer, number, [], { attachments })));
      expect([error.code, error.message]).toEqual(["protocol_error", expect.stringContaining(words)]);
    }
    expect(worker.link.take()).toEqual([]);
  });

  test("answers with what it was not passed: its caller waits for another answer", () => {
    const { router, segments, host, worker, peer } = newScene();
    router.receive(host.session, frame("call", peer, 1, []));
    const number = segments.make(host.session, page);
    segments.seal(host.session, number);
    for (const kind of ["progress", "result"] as const) {
      const bad = frame(kind, host.session.peer, 1, 1, { attachments: [block(number, 0, 1)] });
      expect(thrownBy(() => router.receive(worker.session, bad)).code).toBe("protocol_error");
    }
    router.leave(worker.session, died);
    expect(host.link.take()).toEqual([{ kind: "error", peer, call: 1, body: "worker_died" }]);
  });

  test("returns what it never had", () => {
    const { router, segments, host, worker } = newScene();
    const number = segments.make(host.session, 8 * page);
    const attachments = [block(number)];
    const bad = frame("return", host.session.peer, 0, undefined, { attachments });
    expect(thrownBy(() => router.receive(worker.session, bad)).message).toContain("returns a block of segment 3");
  });

  test("has not said that it takes segments", () => {
    const { router, joinPair, ofHost } = newScene();
    const { host, worker, peer } = joinPair(hostHello, workerHello);
    for (const sent of [
      frame("call", peer, 1, [], { attachments: [block(ofHost)] }),
      frame("call", 99, 2, [], { attachments: [block(ofHost)] }),
      frame("event", peer, 0, [], { attachments: [block(ofHost)] }),
      frame("return", peer, 0, undefined, { attachments: [block(ofHost)] }),
      frame("reclaim", peer, 0),
    ]) {
      const error = thrownBy(() => router.receive(host.session, sent));
      expect([error.code, error.message]).toEqual(["protocol_error", expect.stringContaining("were not negotiated")]);
    }
    expect(worker.link.take()).toEqual([]);
  });

  test("returns or reclaims in the server's name, from the server, or from somebody else's peer", () => {
    const { router, host, worker, peer, ofHost } = newScene();
    const attachments = [block(ofHost)];
    const out = (from: typeof host, to: number, call: number) => [
      [from, frame("return", to, call, undefined, { attachments })] as const,
      [from, frame("reclaim", to, call)] as const,
    ];
    const bad = [out(host, peer, 1), out(host, 0, 0), out(worker, 0, 0), out(worker, 99, 0), out(worker, 2, 1)];
    for (const [from, sent] of bad.flat()) {
      expect(thrownBy(() => router.receive(from.session, sent)).message).toContain("out of place");
    }
  });

  test("names blocks to the server", () => {
    const { router, host, worker, ofHost, control } = newScene();
    const attachments = [block(ofHost)];
    const call = frame("call", 0, 1, ["status", [], {}], { attachments });
    expect(thrownBy(() => router.receive(host.session, call)).code).toBe("protocol_error");
    const event = frame("event", 0, 0, ["checkpoint", 1], { attachments });
    expect(thrownBy(() => router.receive(worker.session, event)).code).toBe("protocol_error");
    expect(control).toEqual([]);
  });

  test("answers the server itself with blocks", () => {
    const { router, worker, ofWorker } = newScene();
    void router.ask(worker.session, "health").catch(() => undefined);
    const [asked] = worker.link.take();
    const answer = frame("result", 0, asked?.call ?? 0, 1, { attachments: [block(ofWorker)] });
    expect(thrownBy(() => router.receive(worker.session, answer)).message).toContain("was not shared with peer 0");
  });
});

describe("blocks come back to their sender, before it is told anything else,", () => {
  /** A pack without a worker, for which one call waits. */
  function waiting(rest: { deadlineMs?: number } = {}) {
    const scene = newScene();
    const { router, host, pack, worker, peer, ofHost } = scene;
    pack.worker = undefined;
    router.leave(worker.session, died);
    router.receive(host.session, frame("call", peer, 9, [], { attachments: [block(ofHost)], ...rest }));
    const back = { kind: "return", peer, call: 1, body: undefined, attachments: [wire(ofHost)] };
    const failed = (code: string) => ({ kind: "error", peer, call: 9, body: code });
    return { ...scene, back, failed };
  }

  test("where a call is cancelled that waits", () => {
    const { router, host, peer, back, pack, startWorker } = waiting();
    router.receive(host.session, frame("cancel", peer, 9));
    expect(host.link.take()).toEqual([back]);
    expect(startWorker(pack, sharingWorkerHello).link.take()).toEqual([]);
    expect(host.link.take()).toEqual([]);
  });

  test("where its time is up", () => {
    const { clock, host, back, failed } = waiting({ deadlineMs: 100 });
    clock.advance(100);
    expect(host.link.take()).toEqual([back, failed("deadline_exceeded")]);
  });

  test("where no worker can be had for it", () => {
    const { router, pack, host, back, failed } = waiting();
    const [call] = pack.waiting;
    if (call === undefined) return expect.unreachable();
    router.fail(call.call, new AirlockError("worker_start_failed", "no"));
    expect(host.link.take()).toEqual([back, failed("worker_start_failed")]);
  });

  test("where its worker is gone by then", () => {
    const { router, pack, host, back, failed, join } = waiting();
    const late = join(sharingWorkerHello, pack);
    late.session.isGone = true;
    for (const { call, frame: sent } of pack.waiting.splice(0)) router.deliver(call, sent, late.session);
    expect(host.link.take()).toEqual([back, failed("disconnected")]);
  });

  test("where its worker takes no segments", () => {
    const { pack, host, back, failed, startWorker } = waiting();
    const worker = startWorker(pack, workerHello);
    expect(host.link.take()).toEqual([back, failed("value_unsupported")]);
    expect(worker.link.take()).toEqual([]);
  });

  test("where its worker's lane is full: that worker has been given nothing", () => {
    const { router, pack, host, back, failed, join } = waiting();
    const worker = join(sharingWorkerHello, pack);
    worker.lane.isFull = true;
    for (const { call, frame: sent } of pack.waiting.splice(0)) router.deliver(call, sent, worker.session);
    const [first, second] = host.link.sent;
    expect(second?.body).toMatchObject({ code: "limit_exceeded", delivered: false });
    expect([first, second].length).toBe(2);
    expect(host.link.take()).toEqual([back, failed("limit_exceeded")]);
    expect([worker.link.take(), worker.session.callsOwed]).toEqual([[], 0]);
  });

  test("but not where its worker has ended, which is not noted yet: the call fails with that one", () => {
    const { router, pack, host, join } = waiting();
    const worker = join(sharingWorkerHello, pack);
    worker.lane.isLeft = true;
    for (const { call, frame: sent } of pack.waiting.splice(0)) router.deliver(call, sent, worker.session);
    expect([host.link.take(), worker.session.callsOwed]).toEqual([[], 1]);
    router.leave(worker.session, new AirlockError("worker_died", "its worker ended"));
    expect(host.link.take()).toMatchObject([{ kind: "error", body: "worker_died" }]);
  });

  test("where the segment goes while it waits", () => {
    const { segments, pack, host, back, failed, ofHost, startWorker } = waiting();
    segments.drop(host.session, ofHost);
    expect(startWorker(pack, sharingWorkerHello).link.take()).toEqual([]);
    expect(host.link.take()).toEqual([back, failed("lease_gone")]);
  });

  test("where the pack is not open any more", () => {
    const { router, host, peer, close, pack, ofHost } = newScene();
    close(pack);
    const attachments = [block(ofHost)];
    router.receive(host.session, frame("call", peer, 9, [], { attachments }));
    router.receive(host.session, frame("event", peer, 0, ["e", 1], { attachments }));
    router.receive(host.session, frame("return", peer, 0, undefined, { attachments }));
    router.receive(host.session, frame("reclaim", peer, 0));
    const back = { kind: "return", peer, call: 1, body: undefined, attachments: [wire(ofHost)] };
    const failed = { kind: "error", peer, call: 9, body: "pack_not_open" };
    expect(host.link.take()).toEqual([back, failed, back]);
  });

  test("where the server stops", () => {
    const { router, host, peer, ofHost } = newScene();
    router.stopTakingCalls();
    router.receive(host.session, frame("call", peer, 9, [], { attachments: [block(ofHost)] }));
    expect(host.link.take().map(({ kind }) => kind)).toEqual(["return", "error"]);
  });

  test("where an event finds nobody, or who can't be passed its segment", () => {
    const { router, segments, host, worker, pack, peer, ofHost, ofWorker } = newScene();
    const event = () => frame("event", peer, 0, ["e", 1], { attachments: [block(ofHost)] });
    segments.drop(worker.session, ofHost);
    worker.lane.isFull = true;
    router.receive(host.session, event());
    segments.drop(worker.session, ofWorker);
    const gone = frame("event", host.session.peer, 0, ["e", 1], { attachments: [block(ofWorker)] });
    router.receive(worker.session, gone);
    pack.worker = undefined;
    router.receive(host.session, event());
    expect(named(host.link.take())).toEqual([
      ["return", 1, wire(ofHost)],
      ["event", 0],
      ["return", 1, wire(ofHost)],
    ]);
    expect(worker.link.take()).toEqual([
      { kind: "return", peer: host.session.peer, call: 1, body: undefined, attachments: [wire(ofWorker)] },
    ]);
  });

  test("where an answer or progress is too late", () => {
    const { router, host, worker, peer, ofWorker } = newScene();
    router.receive(host.session, frame("call", peer, 9, []));
    router.receive(host.session, frame("cancel", peer, 9));
    worker.link.take();
    const attachments = [block(ofWorker)];
    const back = { kind: "return", peer: host.session.peer, call: 1, body: undefined, attachments: [wire(ofWorker)] };
    router.receive(worker.session, frame("progress", host.session.peer, 1, {}, { attachments }));
    router.receive(worker.session, frame("result", host.session.peer, 1, 1, { attachments }));
    expect([worker.link.take(), host.link.take()]).toEqual([[back, back], []]);
  });

  test("but not where a late answer holds references: it goes on with them", () => {
    const { router, host, worker, peer, ofWorker } = newScene();
    router.receive(host.session, frame("call", peer, 9, []));
    router.receive(host.session, frame("cancel", peer, 9));
    worker.link.take();
    const late = frame("result", host.session.peer, 1, 1, { hasReferences: true, attachments: [block(ofWorker)] });
    router.receive(worker.session, late);
    expect([worker.link.take(), named(host.link.take())]).toEqual([[], [["result", 0, wire(ofWorker)]]]);
  });

  test("where an answer's segment is gone, which its caller is told", () => {
    const { router, segments, host, worker, peer, ofWorker } = newScene();
    router.receive(host.session, frame("call", peer, 9, []));
    worker.link.take();
    segments.drop(worker.session, ofWorker);
    host.link.take();
    const attachments = [block(ofWorker)];
    router.receive(worker.session, frame("progress", host.session.peer, 1, {}, { attachments }));
    expect(host.link.take()).toEqual([]);
    router.receive(worker.session, frame("result", host.session.peer, 1, 1, { attachments }));
    expect(host.link.take()).toEqual([{ kind: "error", peer, call: 9, body: "lease_gone" }]);
    expect(worker.link.take().map(({ kind }) => kind)).toEqual(["return", "return"]);
  });

  test("but not from a worker that is gone: with it, all that it held is released", () => {
    const { router, host, worker, peer, ofHost } = newScene();
    router.receive(host.session, frame("call", peer, 8, [], { attachments: [block(ofHost)] }));
    router.receive(worker.session, frame("call", host.session.peer, 1, []));
    const [asked] = host.link.take();
    router.leave(worker.session, died);
    router.receive(host.session, frame("result", peer, asked?.call ?? 0, 1, { attachments: [block(ofHost)] }));
    expect(host.link.take().map(({ kind }) => kind)).toEqual(["cancel", "error"]);
  });
});

describe("a segment's going is nobody else's fault:", () => {
  test("a host that sends what its worker has just dropped goes on", () => {
    const { router, segments, host, worker, peer, ofWorker } = newScene();
    segments.drop(worker.session, ofWorker);
    host.link.take();
    router.receive(host.session, frame("call", peer, 9, [], { attachments: [block(ofWorker)] }));
    expect(host.link.take()).toEqual([
      { kind: "return", peer, call: 1, body: undefined, attachments: [wire(ofWorker)] },
      { kind: "error", peer, call: 9, body: "lease_gone" },
    ]);
    expect(worker.link.take()).toEqual([]);
  });

  test("what it holds can still be returned, also by who has closed its copy", () => {
    const { router, segments, host, worker, peer, ofWorker, ofHost } = newScene();
    segments.drop(worker.session, ofHost);
    const back = { attachments: [block(ofHost)] };
    router.receive(worker.session, frame("return", host.session.peer, 0, undefined, back));
    expect(host.link.take().map(({ kind }) => kind)).toEqual(["return"]);
    segments.drop(worker.session, ofWorker);
    router.receive(host.session, frame("return", peer, 0, undefined, { attachments: [block(ofWorker)] }));
    expect(worker.link.take().map(({ kind }) => kind)).toEqual(["return"]);
  });
});

describe("returns and reclaims", () => {
  test("go to nobody who takes no segments", () => {
    const { router, startWorker, pack, host, ofHost, peer } = newScene();
    const worker = startWorker(pack, workerHello);
    router.receive(host.session, frame("reclaim", peer, 0));
    router.receive(host.session, frame("return", peer, 0, undefined, { attachments: [block(ofHost)] }));
    expect([worker.link.take(), host.link.take()]).toEqual([[], []]);
  });

  test("take nothing of the window, and are bounded by what is held of them", () => {
    const limits = { creditWindowBytes: 1, releaseBytesMax: 100 };
    const made = newRouter(limits);
    const features = [...sharingHello.features, ...payingHello.features];
    const pair = made.joinPair({ ...sharingHello, features }, sharingWorkerHello);
    const { host, worker, peer } = pair;
    worker.link.isReading = false;
    const sent = () => made.router.receive(host.session, frame("reclaim", peer, 0));
    for (let turn = 0; turn < 7; turn++) sent();
    expect(thrownBy(sent)).toMatchObject({ code: "limit_exceeded", message: expect.stringContaining("112 bytes") });
    worker.link.readOn();
    sent();
    expect(host.link.take()).toEqual([]);
  });
});
