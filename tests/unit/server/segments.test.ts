import { describe, expect, test } from "bun:test";
import { AirlockError } from "../../../src/transport/errors.ts";
import type { Limits } from "../../../src/transport/limits.ts";
import { thrownBy } from "../../support/errors.ts";
import { sharingHello, sharingWorkerHello, workerHello } from "../../support/peers.ts";
import { newRouter } from "../../support/router.ts";
import { segmentOf } from "../../support/segments.ts";

const page = 4096;

/** A host with two packs of which each has a worker, and a pack with private memory. */
function newScene(limits: Partial<Limits> = {}) {
  const made = newRouter(limits);
  const { segments, openPack, startWorker, join } = made;
  const host = join(sharingHello);
  const [one, two, apart] = [openPack(host), openPack(host), openPack(host)];
  apart.audience = apart.peer;
  const [worker, other, loner] = [one, two, apart].map((pack) => startWorker(pack, sharingWorkerHello));
  if (worker === undefined || other === undefined || loner === undefined) return expect.unreachable();
  for (const each of [host, worker, other, loner]) each.lane.take();
  const gone = (joined: typeof host) => {
    made.router.leave(joined.session, new AirlockError("worker_died", "it ended"));
  };
  /** A segment that is sealed. */
  const sealed = (owner: typeof host, bytes = page, audience?: number): number => {
    const number = segments.make(owner.session, bytes, audience);
    segments.seal(owner.session, number);
    owner.lane.take();
    return number;
  };
  return { ...made, host, one, two, apart, worker, other, loner, gone, sealed };
}

describe("making a segment", () => {
  test("passes it to its owner alone, under a number that no other one gets", () => {
    const { segments, maker, host, worker, other } = newScene();
    expect(segments.make(host.session, page)).toBe(1);
    expect(segments.make(worker.session, 2 * page)).toBe(2);
    segments.drop(worker.session, 2);
    expect(segments.make(host.session, page)).toBe(3);
    expect([host.lane.take(), worker.lane.take(), other.lane.take()]).toEqual([[1, 3], [2], []]);
    expect([...maker.open.keys()]).toEqual([1001, 1003]);
  });

  test("counts towards what its owner may own, until it is dropped", () => {
    const { segments, maker, host, worker } = newScene({ segmentBytesMax: 10 * page });
    const number = segments.make(worker.session, 6 * page);
    expect(segments.ownedBy(worker.session)).toEqual({ segments: 1, bytes: 6 * page });
    const error = thrownBy(() => segments.make(worker.session, 5 * page));
    expect(error.code).toBe("limit_exceeded");
    expect(error.message).toContain("asked for 20480 bytes and owns 24576 already, of 40960 allowed");
    segments.make(worker.session, 4 * page);
    segments.make(host.session, 10 * page);
    segments.drop(worker.session, number);
    segments.make(worker.session, 6 * page);
    expect(maker.open.size).toBe(3);
  });

  test("is bounded in number too", () => {
    const { segments, host } = newScene({ segmentsPerPeerMax: 2 });
    for (let turn = 0; turn < 2; turn++) segments.make(host.session, page);
    expect(thrownBy(() => segments.make(host.session, page))).toMatchObject({
      code: "limit_exceeded",
      message: expect.stringContaining("owns 2 segments"),
    });
  });

  test("fails for who takes none, and leaves nothing", () => {
    const { segments, maker, join, openPack, startWorker } = newScene();
    const host = join();
    expect(thrownBy(() => segments.make(host.session, page)).code).toBe("bad_request");
    const worker = startWorker(openPack(host), workerHello);
    expect(thrownBy(() => segments.make(worker.session, page)).code).toBe("bad_request");
    expect(maker.open.size).toBe(0);
  });

  test("fails where its owner's lane is full, and leaves nothing", () => {
    const { segments, maker, host } = newScene();
    host.lane.isFull = true;
    expect(thrownBy(() => segments.make(host.session, page)).code).toBe("limit_exceeded");
    expect([maker.open.size, segments.ownedBy(host.session).segments]).toEqual([0, 0]);
    host.lane.isFull = false;
    expect(segments.make(host.session, page)).toBe(1);
  });

  test("says why the system makes none", () => {
    const { segments, maker, host } = newScene();
    maker.failure = new Error("memfd_create failed: too many open files (EMFILE)");
    expect(thrownBy(() => segments.make(host.session, page))).toMatchObject({
      code: "limit_exceeded",
      message: expect.stringContaining("EMFILE"),
    });
  });

  test("is for an audience that there is: all packs that share one, or one with private memory", () => {
    const { segments, host, one, apart, worker, join, openPack } = newScene();
    for (const [audience, expected] of [
      [undefined, 0],
      [0, 0],
      [apart.peer, apart.peer],
    ] as const) {
      expect(segmentOf(segments, segments.make(host.session, page, audience)).audience).toBe(expected);
    }
    expect(thrownBy(() => segments.make(host.session, page, one.peer)).code).toBe("bad_request");
    expect(thrownBy(() => segments.make(host.session, page, 999)).code).toBe("pack_not_open");
    const stranger = openPack(join(sharingHello));
    stranger.audience = stranger.peer;
    expect(thrownBy(() => segments.make(host.session, page, stranger.peer)).code).toBe("pack_not_open");
    expect(thrownBy(() => segments.make(worker.session, page, 0)).code).toBe("bad_request");
  });
});

describe("sealing a segment", () => {
  test("is its owner's to do, once", () => {
    const { segments, maker, host, one, worker } = newScene();
    const number = segments.make(host.session, page);
    expect(thrownBy(() => segments.seal(worker.session, number)).code).toBe("unauthorized");
    expect(maker.open.get(1001)).toBe(false);
    segments.seal(host.session, number);
    expect(maker.open.get(1001)).toBe(true);
    expect(thrownBy(() => segments.seal(host.session, number)).code).toBe("bad_request");
    segments.share(host.session, number, one.peer);
    expect(thrownBy(() => segments.seal(worker.session, number)).code).toBe("unauthorized");
  });

  test("that can't be done drops it", () => {
    const { segments, maker, host } = newScene();
    const number = segments.make(host.session, page);
    maker.failure = new AirlockError("bad_request", "the segment has 0 bytes by now, and was made with 4096");
    expect(thrownBy(() => segments.seal(host.session, number))).toMatchObject({
      code: "bad_request",
      message: expect.stringContaining("has 0 bytes by now"),
    });
    expect([maker.open.size, segments.ownedBy(host.session)]).toEqual([0, { segments: 0, bytes: 0 }]);
    expect(thrownBy(() => segments.seal(host.session, number)).code).toBe("lease_gone");
  });
});

describe("sharing a segment", () => {
  test("passes it once, to those alone that it was shared with", () => {
    const { segments, host, one, worker, other, sealed } = newScene();
    const number = sealed(host);
    segments.share(host.session, number, one.peer);
    segments.share(host.session, number, one.peer);
    expect([worker.lane.take(), other.lane.take(), host.lane.take()]).toEqual([[number], [], []]);
  });

  test("brings a worker's to its host, and from there to other packs, and home without a copy", () => {
    const { segments, host, one, two, worker, other, sealed } = newScene();
    const number = sealed(worker);
    segments.share(worker.session, number, host.session.peer);
    segments.share(host.session, number, two.peer);
    segments.share(host.session, number, one.peer);
    segments.share(other.session, number, host.session.peer);
    expect([host.lane.take(), other.lane.take(), worker.lane.take()]).toEqual([[number], [number], []]);
  });

  test("stays within its audience", () => {
    const { segments, host, one, apart, worker, loner, sealed } = newScene();
    const common = sealed(host);
    const own = sealed(host, page, apart.peer);
    const theirs = sealed(loner);
    segments.share(loner.session, theirs, host.session.peer);
    const refused = [
      [common, apart],
      [own, one],
      [theirs, one],
    ] as const;
    for (const [number, pack] of refused) {
      const error = thrownBy(() => segments.share(host.session, number, pack.peer));
      expect([error.code, error.message]).toEqual([
        "unauthorized",
        expect.stringContaining(`segment ${number} is for`),
      ]);
      expect(error.message).toContain(`peer ${pack.peer}`);
    }
    for (const number of [own, theirs]) segments.share(host.session, number, apart.peer);
    expect([worker.lane.take(), loner.lane.take()]).toEqual([[], [own]]);
  });

  test("is for who has it", () => {
    const { segments, host, worker, other, two, sealed } = newScene();
    const number = sealed(worker);
    expect(thrownBy(() => segments.share(other.session, number, host.session.peer)).code).toBe("unauthorized");
    expect(thrownBy(() => segments.share(host.session, number, two.peer)).code).toBe("unauthorized");
    expect(thrownBy(() => segments.share(host.session, 999, two.peer)).code).toBe("unauthorized");
    segments.share(worker.session, number, host.session.peer);
    segments.drop(host.session, number);
    expect(thrownBy(() => segments.share(host.session, number, two.peer)).code).toBe("unauthorized");
    segments.drop(worker.session, number);
    expect(thrownBy(() => segments.share(worker.session, number, host.session.peer)).code).toBe("lease_gone");
  });

  test("is with a host's own packs, and a worker's own host", () => {
    const { segments, host, worker, two, join, openPack, sealed } = newScene();
    const stranger = join(sharingHello);
    const [mine, theirs] = [sealed(host), sealed(worker)];
    expect(thrownBy(() => segments.share(host.session, mine, openPack(stranger).peer)).code).toBe("pack_not_open");
    expect(thrownBy(() => segments.share(host.session, mine, host.session.peer)).code).toBe("pack_not_open");
    for (const peer of [stranger.session.peer, two.peer, 0]) {
      expect(thrownBy(() => segments.share(worker.session, theirs, peer)).code).toBe("unauthorized");
    }
  });

  test("waits for the seal", () => {
    const { segments, host, one, worker } = newScene();
    const number = segments.make(host.session, page);
    expect(thrownBy(() => segments.share(host.session, number, one.peer)).code).toBe("bad_request");
    expect(worker.lane.take()).toEqual([]);
  });

  test("fails for who takes none", () => {
    const { segments, host, openPack, startWorker, sealed } = newScene();
    const pack = openPack(host);
    startWorker(pack, workerHello);
    const number = sealed(host);
    expect(thrownBy(() => segments.share(host.session, number, pack.peer)).code).toBe("bad_request");
    expect(segmentOf(segments, number).sharedWith).not.toContain(pack.peer);
  });

  test("fails where the lane is full, and can be tried again", () => {
    const { segments, host, one, worker, sealed } = newScene();
    const number = sealed(host);
    worker.lane.isFull = true;
    expect(thrownBy(() => segments.share(host.session, number, one.peer)).code).toBe("limit_exceeded");
    expect(segmentOf(segments, number).sharedWith).not.toContain(one.peer);
    worker.lane.isFull = false;
    segments.share(host.session, number, one.peer);
    expect(worker.lane.take()).toEqual([number]);
  });

  test("with a worker that has ended, which is not noted yet, is remembered for the next one", () => {
    const { segments, host, one, worker, sealed } = newScene();
    const number = sealed(host);
    worker.lane.isLeft = true;
    segments.share(host.session, number, one.peer);
    const { sharedWith, holders } = segmentOf(segments, number);
    expect([sharedWith.has(one.peer), holders.has(worker.session)]).toEqual([true, false]);
  });

  test("with a pack that has no worker is remembered", () => {
    const { segments, host, openPack, sealed } = newScene();
    const pack = openPack(host);
    const number = sealed(host);
    segments.share(host.session, number, pack.peer);
    expect(segmentOf(segments, number).sharedWith).toContain(pack.peer);
  });
});

describe("a worker is passed at its start", () => {
  test("what was shared with its place, while another one was there or none, and nothing else", () => {
    const { segments, host, one, two, worker, gone, startWorker, sealed } = newScene();
    const [before, meanwhile, others, unsaid] = [sealed(host), sealed(host), sealed(host), sealed(host)];
    segments.share(host.session, before, one.peer);
    gone(worker);
    one.worker = undefined;
    segments.share(host.session, meanwhile, one.peer);
    segments.share(host.session, others, two.peer);
    const next = startWorker(one, sharingWorkerHello);
    next.lane.take();
    expect(segments.passShared(next.session)).toBe(true);
    expect(next.lane.take()).toEqual([before, meanwhile]);
    expect(segmentOf(segments, unsaid).holders.has(next.session)).toBe(false);
    expect([segments.passShared(next.session), next.lane.take()]).toEqual([true, []]);
  });

  test("nothing of another audience than its pack has by then", () => {
    const { segments, host, one, worker, gone, startWorker, sealed } = newScene();
    segments.share(host.session, sealed(host), one.peer);
    gone(worker);
    one.audience = one.peer;
    const next = startWorker(one, sharingWorkerHello);
    next.lane.take();
    expect([segments.passShared(next.session), next.lane.take()]).toEqual([true, []]);
  });

  test("not all of it where its lane is full, which is told", () => {
    const { segments, host, one, worker, gone, startWorker, sealed } = newScene();
    segments.share(host.session, sealed(host), one.peer);
    gone(worker);
    const next = startWorker(one, sharingWorkerHello);
    next.lane.take();
    next.lane.isFull = true;
    expect(segments.passShared(next.session)).toBe(false);
  });

  test("nothing where it takes none", () => {
    const { segments, host, one, worker, gone, startWorker, sealed } = newScene();
    segments.share(host.session, sealed(host), one.peer);
    gone(worker);
    expect(segments.passShared(startWorker(one, workerHello).session)).toBe(true);
  });
});

describe("a segment goes", () => {
  test("for all when its owner drops it, and those that have it are told", () => {
    const { segments, maker, host, one, two, worker, other, sealed } = newScene();
    const number = sealed(host);
    for (const pack of [one, two]) segments.share(host.session, number, pack.peer);
    segments.drop(other.session, number);
    segments.drop(host.session, number);
    const told = { kind: "event", peer: 0, call: 0, body: ["segment_gone", { segment: number }] };
    expect([worker.link.take(), other.link.take(), host.link.take()]).toEqual([[told], [], []]);
    expect([maker.open.size, segments.find(number)]).toEqual([0, undefined]);
    for (const each of [host, worker]) segments.drop(each.session, number);
    expect(segments.wasMade(number)).toBe(true);
  });

  test("for one that drops it, which may be passed it again", () => {
    const { segments, maker, host, one, worker, sealed } = newScene();
    const number = sealed(host);
    segments.share(host.session, number, one.peer);
    segments.drop(worker.session, number);
    segments.share(host.session, number, one.peer);
    expect(worker.lane.take()).toEqual([number, number]);
    expect(maker.open.size).toBe(1);
  });

  test("not at all where somebody drops it who never had it", () => {
    const { segments, maker, host, worker, sealed } = newScene();
    segments.drop(worker.session, sealed(host));
    segments.drop(worker.session, 999);
    expect(maker.open.size).toBe(1);
  });

  test("with its owner, unless the host has it: then when that drops it", () => {
    const { segments, maker, host, worker, other, one, two, gone, startWorker, sealed } = newScene();
    const [kept, lost] = [sealed(worker), sealed(worker)];
    segments.share(worker.session, kept, host.session.peer);
    segments.share(host.session, kept, two.peer);
    gone(worker);
    gone(startWorker(one, sharingWorkerHello));
    expect([...segmentOf(segments, kept).holders.keys()]).toEqual([host.session, other.session]);
    expect([segments.find(lost), segments.ownedBy(worker.session).bytes]).toEqual([undefined, 0]);
    expect(maker.open.size).toBe(1);
    segments.drop(host.session, kept);
    expect(maker.open.size).toBe(0);
    expect(other.link.take()).toEqual([{ kind: "event", peer: 0, call: 0, body: ["segment_gone", { segment: kept }] }]);
  });

  test("with its owner where the host has dropped it already", () => {
    const { segments, maker, host, worker, gone, sealed } = newScene();
    const number = sealed(worker);
    segments.share(worker.session, number, host.session.peer);
    segments.drop(host.session, number);
    gone(worker);
    expect(maker.open.size).toBe(0);
  });

  test("with the host, whoever of its packs has made it", () => {
    const { segments, maker, host, worker, one, join, gone, sealed } = newScene();
    const mine = sealed(host);
    segments.share(host.session, mine, one.peer);
    segments.share(worker.session, sealed(worker), host.session.peer);
    const others = sealed(join(sharingHello));
    gone(host);
    expect([...maker.open.keys()]).toEqual([segmentOf(segments, others).descriptor]);
    expect(worker.link.take()).toEqual([
      { kind: "event", peer: 0, call: 0, body: ["segment_gone", { segment: mine }] },
    ]);
    expect(segments.ownedBy(worker.session)).toEqual({ segments: 0, bytes: 0 });
  });

  test("the oldest first, where a host keeps more of workers that have ended than anybody may own", () => {
    const { segments, host, one, startWorker, gone, sealed } = newScene({ segmentsPerPeerMax: 2 });
    const kept: number[] = [];
    for (let life = 0; life < 3; life++) {
      const worker = startWorker(one, sharingWorkerHello);
      for (let turn = 0; turn < 2; turn++) {
        const number = sealed(worker);
        segments.share(worker.session, number, host.session.peer);
        kept.push(number);
      }
      gone(worker);
    }
    expect(kept.filter((number) => segments.find(number) !== undefined)).toEqual(kept.slice(-2));
  });

  test("with the server", () => {
    const { segments, maker, host, worker, sealed } = newScene();
    for (const each of [host, worker]) sealed(each);
    segments.close();
    segments.close();
    expect(maker.open.size).toBe(0);
  });
});
