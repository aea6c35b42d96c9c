import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Router } from "../../../src/server/router.ts";
import type { Call, Destination, Session } from "../../../src/server/session.ts";
import { ManualClock } from "../../../src/transport/clock.ts";
import { AirlockError } from "../../../src/transport/errors.ts";
import { type Frame, frameDeadlineMs } from "../../../src/transport/frame.ts";
import { defaultLimits } from "../../../src/transport/limits.ts";
import { thrownBy } from "../../support/errors.ts";
import { FakeLink, frame, hostHello, workerHello } from "../../support/peers.ts";

/** A pack whose worker is there from the start, or comes when the test says so. */
class FakePack implements Destination {
  waiting: { call: Call; frame: Frame }[] = [];
  worker: Session | undefined;
  readonly #router: Router;

  constructor(router: Router) {
    this.#router = router;
  }

  submit(call: Call, sent: Frame): void {
    if (this.worker === undefined) this.waiting.push({ call, frame: sent.slice() });
    else this.#router.deliver(call, sent, this.worker);
  }

  withdraw(call: Call): void {
    this.waiting = this.waiting.filter((other) => other.call !== call);
  }
}

function newRouter() {
  const clock = new ManualClock();
  const control: Call[] = [];
  const packs = new Map<number, { host: Session; pack: FakePack }>();
  const router = new Router({
    limits: defaultLimits,
    clock,
    onControl: (call) => void control.push(call),
    destinationOf: (host, peer) => {
      const found = packs.get(peer);
      if (found?.host === host) return found.pack;
      throw new AirlockError("pack_not_open", `peer ${peer} is no pack of this host`);
    },
    packNameOf: (call) => (packs.has(call.destination) ? "blur" : undefined),
    withdraw: (call) => packs.get(call.destination)?.pack.withdraw(call),
  });
  const join = (hello = hostHello) => {
    const link = new FakeLink();
    return { link, session: router.join(hello, link) };
  };
  /** A host with one pack, and the pack's worker. */
  const joinPair = () => {
    const [host, worker] = [join(), join(workerHello)];
    const peer = router.nextPeer();
    const pack = new FakePack(router);
    pack.worker = worker.session;
    packs.set(peer, { host: host.session, pack });
    return { host, worker, pack, peer };
  };
  return { clock, control, router, join, joinPair };
}

/** A pair with a call under way; `id` is its number at the worker. */
function withCall(deadlineMs?: number) {
  const made = newRouter();
  const pair = made.joinPair();
  made.router.receive(pair.host.session, frame("call", pair.peer, 9, ["run", [], {}], deadlineMs));
  const id = pair.worker.link.take()[0]?.call ?? 0;
  return { ...made, ...pair, id };
}

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
    expect([host.session.made.size, worker.session.given.size]).toEqual([0, 0]);
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
    router.receive(host.session, frame("call", peer, 1, [], 1000));
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
    router.receive(host.session, frame("call", 0, 11, []));
    router.receive(worker.session, frame("result", 0, id, 1));
    expect(host.link.take().map(({ call, body }) => [call, body])).toEqual([
      [10, "server_stopping"],
      [11, "server_stopping"],
      [9, 1],
    ]);
    expect(router.callsWaitedFor).toBe(0);
  });

  test("that is cancelled is not answered, and the worker is told", () => {
    const { router, host, worker, peer, id } = withCall();
    router.receive(host.session, frame("cancel", peer, 9));
    router.receive(host.session, frame("cancel", peer, 9));
    expect(worker.link.take()).toEqual([{ kind: "cancel", peer: host.session.peer, call: id, body: undefined }]);
    router.receive(worker.session, frame("progress", 0, id, {}));
    router.receive(worker.session, frame("error", 0, id, { code: "cancelled", message: "m" }));
    expect(host.link.take()).toEqual([]);
    expect(worker.session.given.size).toBe(0);
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
    router.receive(host.session, frame("call", peer, 2, [], 50));
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
    expect([worker.link.take(), worker.session.given.size]).toEqual([[], 0]);
  });
});

function newRouterWithPair() {
  const made = newRouter();
  return { ...made, ...made.joinPair() };
}

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
  test("is answered like any other, and counts as waited for until then", async () => {
    const { router, worker } = newRouterWithPair();
    const asked = router.ask(worker.session, "idle");
    const [sent] = worker.link.take();
    expect(sent).toEqual({ kind: "call", peer: 0, call: 1, body: ["idle", [], {}] });
    expect(router.callsWaitedFor).toBe(1);
    router.receive(worker.session, frame("result", 0, 1, null));
    await asked;
    expect(router.callsWaitedFor).toBe(0);
  });

  test("is over when the worker is gone", async () => {
    const { router, worker } = newRouterWithPair();
    const asked = router.ask(worker.session, "idle");
    router.leave(worker.session, new AirlockError("worker_died", "killed"));
    await asked;
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

/** One thing that happens to a router with two hosts and two workers; `pick` chooses among what is there. */
const step = fc.record({
  what: fc.constantFrom(
    "call",
    "call",
    "call",
    "answer",
    "answer",
    "fail",
    "progress",
    "cancel",
    "wait",
    "worker",
    "host",
  ),
  pair: fc.nat({ max: 1 }),
  pick: fc.nat({ max: 20 }),
  deadlineMs: fc.option(fc.integer({ min: 0, max: 30 }), { nil: undefined }),
});

type Step = typeof step extends fc.Arbitrary<infer S> ? S : never;

const dead = new AirlockError("worker_died", "killed");

/** A host and its worker in a random history, and what the host may expect. */
class Pair {
  readonly #made: ReturnType<typeof newRouter>;
  readonly #pair: ReturnType<ReturnType<typeof newRouter>["joinPair"]>;
  readonly #cancelled = new Set<number>();
  #next = 1;
  #gone = false;

  constructor(made: ReturnType<typeof newRouter>) {
    this.#made = made;
    this.#pair = made.joinPair();
  }

  /** What happens by name; a step that finds nothing to act on does nothing. */
  take({ what, pick, deadlineMs }: Step): void {
    const { router, clock } = this.#made;
    const { host, worker, peer } = this.#pair;
    if (this.#gone) return;
    const id = [...worker.session.given.keys()].at(-1 - (pick % Math.max(worker.session.given.size, 1)));
    const actions: Record<Step["what"], () => void> = {
      call: () => router.receive(host.session, frame("call", peer, this.#next++, [], deadlineMs)),
      answer: () => id && router.receive(worker.session, frame("result", 0, id, id)),
      fail: () => id && router.receive(worker.session, frame("error", 0, id, { code: "cancelled", message: "m" })),
      progress: () => id && router.receive(worker.session, frame("progress", 0, id, {})),
      cancel: () => this.#cancel([...host.session.made.keys()][pick]),
      wait: () => clock.advance(pick),
      worker: () => router.leave(worker.session, dead),
      host: () => this.#leave(pick),
    };
    actions[what]();
  }

  #cancel(number: number | undefined): void {
    if (number === undefined) return;
    this.#cancelled.add(number);
    this.#made.router.receive(this.#pair.host.session, frame("cancel", this.#pair.peer, number));
  }

  #leave(pick: number): void {
    // A host that is gone ends its history, so that is made rare.
    if (pick !== 0) return;
    this.#gone = true;
    this.#made.router.leave(this.#pair.host.session, dead);
  }

  end(): void {
    this.#made.router.leave(this.#pair.worker.session, dead);
  }

  get heard(): number {
    return this.#pair.host.link.sent.length;
  }

  check(): void {
    const { host, worker } = this.#pair;
    const answered = host.link.sent.filter(({ kind }) => kind !== "progress").map(({ call }) => call);
    for (let number = 1; number < this.#next; number++) {
      const count = answered.filter((call) => call === number).length;
      if (this.#cancelled.has(number)) expect(count).toBe(0);
      else if (this.#gone) expect(count).toBeLessThanOrEqual(1);
      else expect(count).toBe(1);
    }
    expect([host.session.made.size, worker.session.given.size]).toEqual([0, 0]);
  }
}

test("every call is answered exactly once, unless its caller cancelled it or is gone", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (history) => {
      const made = newRouter();
      const pairs = [new Pair(made), new Pair(made)];
      for (const each of history) pairs[each.pair]?.take(each);
      for (const pair of pairs) pair.end();
      for (const pair of pairs) pair.check();
      expect(made.router.callsWaitedFor).toBe(0);
      const told = pairs.map(({ heard }) => heard);
      made.clock.advance(1000);
      expect(pairs.map(({ heard }) => heard)).toEqual(told);
    }),
    { numRuns: 300 },
  );
});
