/** Random histories of a router: lawful ones, of which every call's end is checked, and such as no lawful peer would make. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { AirlockError } from "../../../src/transport/errors.ts";
import { type Frame, FrameKind } from "../../../src/transport/frame.ts";
import { frame, hostHello, payingHello, payingWorkerHello, workerHello } from "../../support/peers.ts";
import { type FakePack, type Joined, newRouter } from "../../support/router.ts";

const windowBytes = 400;
const dead = new AirlockError("worker_died", "killed");

type Made = ReturnType<typeof newRouter>;

const step = fc.record({
  what: fc.constantFrom(
    ...([
      "call",
      "call",
      "call",
      "nested",
      "nested",
      "answer",
      "answer",
      "fail",
      "progress",
      "event",
      "release",
    ] as const),
    ...(["cancel", "wait", "stall", "read", "stop", "end"] as const),
  ),
  /** Of which pair, and whether its host. */
  pair: fc.nat({ max: 1 }),
  isHost: fc.boolean(),
  pick: fc.nat({ max: 20 }),
  deadlineMs: fc.option(fc.integer({ min: 0, max: 30 }), { nil: undefined }),
  hasReferences: fc.boolean(),
});

type Step = typeof step extends fc.Arbitrary<infer S> ? S : never;

/** A lawful peer: it sends what it has credit for, answers what it was asked, and notes what it hears. */
class Peer {
  readonly joined: Joined;
  readonly #router: Made["router"];
  /** The other one's number. */
  readonly #to: number;
  #left = windowBytes;
  #heard = 0;
  #lastCall = 0;
  readonly #made: number[] = [];
  readonly #given: number[] = [];
  readonly #cancelled = new Set<number>();
  isGone = false;

  constructor({ router }: Made, joined: Joined, to: number) {
    this.#router = router;
    this.joined = joined;
    this.#to = to;
  }

  /** Looks at what has arrived since the last time. */
  #hear(): void {
    const { sent } = this.joined.link;
    for (; this.#heard < sent.length; this.#heard++) {
      const { kind, call } = sent[this.#heard] ?? expect.unreachable();
      if (kind === "credit") this.#left += call;
      if (kind === "call") this.#given.push(call);
    }
  }

  #send(sent: Frame, isFree = false): boolean {
    this.#hear();
    if (this.isGone || (!isFree && this.#left <= 0)) return false;
    if (!isFree) this.#left -= sent.byteLength;
    this.#router.receive(this.joined.session, sent);
    return true;
  }

  take({ what, pick, deadlineMs, hasReferences }: Step): void {
    this.#hear();
    const given = this.#given[pick % Math.max(this.#given.length, 1)];
    switch (what) {
      case "call":
        return this.#call({ deadlineMs, hasReferences });
      case "nested":
        return given === undefined ? undefined : this.#call({ deadlineMs, parent: given });
      case "answer":
        return this.#answer(given, "result", hasReferences);
      case "fail":
        return this.#answer(given, "error", hasReferences);
      case "progress":
        if (given !== undefined) this.#send(frame("progress", this.#to, given, {}, { hasReferences }));
        return;
      case "event":
      case "release":
        this.#send(frame(what, this.#to, 0, [1, 1]), what === "release");
        return;
      case "cancel":
        return this.#cancel(this.#made[pick]);
      case "stall":
        this.joined.link.isReading = false;
        return;
      case "read":
        this.joined.link.readOn();
    }
  }

  #call(rest: { deadlineMs?: number | undefined; parent?: number; hasReferences?: boolean }): void {
    const number = this.#lastCall + 1;
    if (!this.#send(frame("call", this.#to, number, [], rest))) return;
    this.#lastCall = number;
    this.#made.push(number);
  }

  #answer(id: number | undefined, kind: "result" | "error", hasReferences: boolean): void {
    if (id === undefined) return;
    const body = { code: "cancelled", message: "m" };
    if (this.#send(frame(kind, this.#to, id, body, { hasReferences }))) this.#given.splice(this.#given.indexOf(id), 1);
  }

  answerAll(): void {
    this.#hear();
    for (const id of [...this.#given]) this.#answer(id, "result", false);
  }

  #cancel(number: number | undefined): void {
    if (number === undefined || this.isGone) return;
    if (this.#answersTo(number) === 0) this.#cancelled.add(number);
    this.#send(frame("cancel", this.#to, number), true);
  }

  #answersTo(number: number): number {
    const { sent } = this.joined.link;
    return sent.filter(({ kind, call }) => call === number && (kind === "result" || kind === "error")).length;
  }

  leave(): void {
    this.isGone = true;
    this.#router.leave(this.joined.session, dead);
    this.joined.link.abort();
  }

  check(): void {
    for (const number of this.#made) {
      const answers = this.#answersTo(number);
      if (this.#cancelled.has(number)) expect(answers).toBe(0);
      else if (this.isGone) expect(answers).toBeLessThanOrEqual(1);
      else expect(answers).toBe(1);
    }
    expect([this.joined.session.made.size, this.joined.session.callsOwed]).toEqual([0, 0]);
  }

  /** All that was held has passed: what was taken of the window is there again, but for what is worth no frame. */
  checkCredit(): void {
    this.#hear();
    expect(this.#left).toBeLessThanOrEqual(windowBytes);
    expect(this.#left).toBeGreaterThan((windowBytes * 3) / 4);
  }
}

/** A host, its pack, and the pack's workers one after another. */
class Pair {
  readonly #made: Made;
  readonly host: Peer;
  readonly #pack: FakePack;
  readonly #workers: Peer[] = [];

  constructor(made: Made) {
    this.#made = made;
    const host = made.join(payingHello);
    this.#pack = made.openPack(host);
    this.host = new Peer(made, host, this.#pack.peer);
    this.#start();
  }

  #start(): Peer {
    const joined = this.#made.startWorker(this.#pack, payingWorkerHello);
    const worker = new Peer(this.#made, joined, this.#pack.host.peer);
    this.#workers.push(worker);
    return worker;
  }

  get #worker(): Peer {
    return this.#workers.at(-1) ?? expect.unreachable();
  }

  take(each: Step): void {
    if (this.host.isGone) return;
    if (each.what === "wait") this.#made.clock.advance(each.pick);
    // Its calls wait for the next one from here on.
    else if (each.what === "stop") this.#pack.worker = undefined;
    else if (each.what === "end") this.#end(each.isHost && each.pick === 0);
    else (each.isHost ? this.host : this.#worker).take(each);
  }

  /** One of the two ends. A host that does ends the history, so that is made rare. */
  #end(isHost: boolean): void {
    if (isHost) return this.host.leave();
    this.#pack.worker = undefined;
    this.#worker.leave();
    this.#start();
  }

  /** The last worker ends, and the host reads and answers all that it was sent: now no call is left. */
  finish(): void {
    for (const { call } of [...this.#pack.waiting]) this.#made.router.fail(call, dead);
    this.#worker.leave();
    this.host.joined.link.readOn();
    this.host.answerAll();
  }

  check(): void {
    for (const peer of [this.host, ...this.#workers]) peer.check();
    if (!this.host.isGone) this.host.checkCredit();
  }
}

test("every call is answered exactly once, in both directions, unless its caller gave it up or is gone", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (history) => {
      const made = newRouter({ creditWindowBytes: windowBytes });
      const pairs = [new Pair(made), new Pair(made)];
      for (const each of history) pairs[each.pair]?.take(each);
      for (const pair of pairs) pair.finish();
      for (const pair of pairs) pair.check();
      expect([made.router.callsWaitedFor, made.router.callsHeld]).toEqual([0, 0]);
      const told = pairs.map(({ host }) => host.joined.link.sent.length);
      made.clock.advance(60_000);
      expect(pairs.map(({ host }) => host.joined.link.sent.length)).toEqual(told);
    }),
    { numRuns: 500 },
  );
});

const u32 = fc.oneof(fc.nat({ max: 12 }), fc.nat({ max: 0xffff_ffff }), fc.constantFrom(0xffff_fffe, 0xffff_ffff));
/** Every kind, those most often that need not end their sender. */
const kind = fc.constantFrom(
  ...(Object.keys(FrameKind) as (keyof typeof FrameKind)[]),
  ...(["call", "call", "call", "call", "cancel", "cancel", "event", "release", "result"] as const),
);
const anyFrame = fc
  .record({
    kind,
    peer: u32,
    call: u32,
    deadlineMs: fc.option(fc.nat({ max: 50 }), { nil: undefined }),
    parent: fc.option(u32, { nil: undefined, freq: 1 }),
    hasReferences: fc.boolean(),
    body: fc.string({ maxLength: 200 }),
  })
  .map((drawn) => {
    const { hasReferences, deadlineMs, parent } = drawn;
    const rest = drawn.kind === "call" ? { hasReferences, deadlineMs, parent } : { hasReferences };
    const isNews = drawn.kind === "event" || drawn.kind === "release";
    return frame(drawn.kind, drawn.peer, isNews ? 0 : drawn.call, drawn.body, rest);
  });
const anyStep = fc.record({ who: fc.nat({ max: 6 }), sent: anyFrame, waitMs: fc.nat({ max: 20 }) });

/** Two hosts, one of which keeps to credit, with three packs each, the last of which has no worker. */
function newCrowd() {
  const made = newRouter({ creditWindowBytes: windowBytes });
  const hosts = [hostHello, payingHello].map((hello) => made.join(hello));
  const packs = hosts.flatMap((host) => [made.openPack(host), made.openPack(host), made.openPack(host)]);
  const workers = packs.flatMap((pack, index) =>
    index % 3 === 2 ? [] : [made.startWorker(pack, index % 2 === 0 ? workerHello : payingWorkerHello)],
  );
  const peers = [...hosts, ...workers];
  const end = (peer: Joined) => {
    made.router.leave(peer.session, dead);
    peer.link.abort();
    peers.splice(peers.indexOf(peer), 1);
  };
  return { ...made, packs, peers, end };
}

test("whatever frames come, each either has its effect or ends its sender, and no call outlives the peers", () => {
  fc.assert(
    fc.property(fc.array(anyStep, { maxLength: 150 }), (history) => {
      const { router, clock, control, packs, peers, end } = newCrowd();
      for (const { who, sent, waitMs } of history) {
        const peer = peers[who];
        if (peer !== undefined && endsIts(() => router.receive(peer.session, sent))) end(peer);
        clock.advance(waitMs);
        for (const asked of control.splice(0, waitMs % 3)) router.answer(asked, who);
      }
      for (const asked of control) router.answer(asked, null);
      for (const { call } of packs.flatMap((pack) => pack.waiting)) router.fail(call, dead);
      for (const peer of [...peers]) end(peer);
      expect([router.callsHeld, router.callsWaitedFor]).toEqual([0, 0]);
    }),
    { numRuns: 500 },
  );
});

/** Whether the frame that `action` has the router take breaks the protocol; anything but an AirlockError fails the test. */
function endsIts(action: () => void): boolean {
  try {
    action();
    return false;
  } catch (error) {
    if (!(error instanceof AirlockError)) throw error;
    expect(error.code).toBeOneOf(["protocol_error", "limit_exceeded"]);
    return true;
  }
}
