/** Random histories of a router: lawful ones, of which every call's end is checked, and such as no lawful peer would make. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { AirlockError } from "../../../src/transport/errors.ts";
import {
  type Attachment,
  type Frame,
  type FrameFields,
  FrameKind,
  frameAttachments,
} from "../../../src/transport/frame.ts";
import {
  frame,
  hostHello,
  payingHello,
  payingWorkerHello,
  read,
  sharingHello,
  workerHello,
} from "../../support/peers.ts";
import { type FakePack, type Joined, newRouter } from "../../support/router.ts";

const windowBytes = 400;
const dead = new AirlockError("worker_died", "killed");

const lawfulHello = { ...payingHello, features: [...payingHello.features, ...sharingHello.features] };

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
      "reclaim",
    ] as const),
    ...(["cancel", "wait", "stall", "read", "stop", "end"] as const),
  ),
  /** Of which pair, and whether its host. */
  pair: fc.nat({ max: 1 }),
  isHost: fc.boolean(),
  pick: fc.nat({ max: 20 }),
  deadlineMs: fc.option(fc.integer({ min: 0, max: 30 }), { nil: undefined }),
  hasReferences: fc.boolean(),
  attaches: fc.boolean(),
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
  /** The blocks that it sent, each once, by their generations, and what kind of frame named it. */
  readonly #attached = new Map<number, string>();
  readonly #segment: number;
  isGone = false;

  constructor({ router, segments }: Made, joined: Joined, to: number) {
    this.#router = router;
    this.joined = joined;
    this.#to = to;
    this.#segment = segments.make(joined.session, 4096);
    segments.seal(joined.session, this.#segment);
    segments.share(joined.session, this.#segment, to);
  }

  /** A block that no other frame names, or none. */
  #block(attaches: boolean): readonly Attachment[] {
    return attaches ? [{ segment: this.#segment, page: 0, pages: 1, generation: this.#attached.size }] : [];
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
    for (const { generation } of frameAttachments(sent)) this.#attached.set(generation, read(sent).kind);
    this.#router.receive(this.joined.session, sent);
    return true;
  }

  take({ what, pick, deadlineMs, hasReferences, attaches }: Step): void {
    this.#hear();
    const attachments = this.#block(attaches);
    const given = this.#given[pick % Math.max(this.#given.length, 1)];
    switch (what) {
      case "call":
        return this.#call({ deadlineMs, hasReferences, attachments });
      case "nested":
        return given === undefined ? undefined : this.#call({ deadlineMs, parent: given, attachments });
      case "answer":
        return this.#answer(given, "result", { hasReferences, attachments });
      case "fail":
        return this.#answer(given, "error", { hasReferences });
      case "progress":
        if (given !== undefined) this.#send(frame("progress", this.#to, given, {}, { hasReferences, attachments }));
        return;
      case "event":
        this.#send(frame(what, this.#to, 0, [1, 1], { attachments }));
        return;
      case "release":
      case "reclaim":
        this.#send(frame(what, this.#to, 0, what === "release" ? [1, 1] : undefined), true);
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

  #call(rest: Pick<FrameFields, "deadlineMs" | "parent" | "hasReferences" | "attachments">): void {
    const number = this.#lastCall + 1;
    if (!this.#send(frame("call", this.#to, number, [], rest))) return;
    this.#lastCall = number;
    this.#made.push(number);
  }

  #answer(
    id: number | undefined,
    kind: "result" | "error",
    rest: Pick<FrameFields, "hasReferences" | "attachments"> = {},
  ): void {
    if (id === undefined) return;
    const body = { code: "cancelled", message: "m" };
    if (this.#send(frame(kind, this.#to, id, body, rest))) this.#given.splice(this.#given.indexOf(id), 1);
  }

  answerAll(): void {
    this.#hear();
    for (const id of [...this.#given]) this.#answer(id, "result");
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

  /** Every block that it sent has arrived or come back, once; with an answer to a peer that is gone, it need do neither. */
  checkBlocks(others: readonly Peer[]): void {
    const arrived = others.flatMap(({ joined }) => joined.link.sent);
    const back = this.joined.link.sent.filter(({ kind, call }) => kind === "return" && call === 1);
    const ends = [...arrived, ...back].flatMap(({ attachments = [] }) => attachments);
    for (const [generation, kind] of this.#attached) {
      const count = ends.filter((each) => each[0] === this.#segment && each[3] === generation).length;
      const mayVanish = (kind === "result" || kind === "progress") && others.some(({ isGone }) => isGone);
      if (mayVanish) expect(count).toBeLessThanOrEqual(1);
      else expect([generation, count]).toEqual([generation, 1]);
    }
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
    const host = made.join(lawfulHello);
    this.#pack = made.openPack(host);
    this.host = new Peer(made, host, this.#pack.peer);
    this.#start();
  }

  #start(): Peer {
    const joined = this.#made.startWorker(this.#pack, { ...workerHello, features: lawfulHello.features });
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
    if (this.host.isGone) return;
    this.host.checkCredit();
    this.host.checkBlocks(this.#workers);
    for (const worker of this.#workers) worker.checkBlocks([this.host]);
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
      for (const { host } of pairs) host.leave();
      expect(made.maker.open.size).toBe(0);
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
    attachments: fc.array(
      fc.record({
        segment: fc.nat({ max: 12 }),
        page: fc.oneof(fc.nat({ max: 3 }), u32),
        pages: fc.oneof(fc.nat({ max: 3 }), u32),
        generation: u32,
      }),
      { maxLength: 2 },
    ),
    body: fc.string({ maxLength: 200 }),
  })
  .map((drawn) => {
    const { hasReferences, deadlineMs, parent } = drawn;
    const attachments = attaching.has(drawn.kind) ? drawn.attachments : [];
    const rest =
      drawn.kind === "call"
        ? { hasReferences, deadlineMs, parent, attachments }
        : { hasReferences: hasReferences && !isAboutMemory(drawn.kind), attachments };
    const isNews = drawn.kind === "event" || drawn.kind === "release" || isAboutMemory(drawn.kind);
    const body = isAboutMemory(drawn.kind) ? undefined : drawn.body;
    return frame(drawn.kind, drawn.peer, isNews ? 0 : drawn.call, body, rest);
  });
const attaching: ReadonlySet<string> = new Set(["call", "result", "progress", "event", "return"]);
function isAboutMemory(name: keyof typeof FrameKind): boolean {
  return name === "return" || name === "reclaim";
}
/** What a peer asks of the server about memory. */
const anyRequest = fc.record({
  method: fc.constantFrom("make", "make", "seal", "share", "share", "drop"),
  segment: fc.nat({ max: 12 }),
  peer: fc.nat({ max: 12 }),
});
const anyStep = fc.record({
  who: fc.nat({ max: 6 }),
  sent: anyFrame,
  request: fc.option(anyRequest, { nil: undefined }),
  waitMs: fc.nat({ max: 20 }),
});
type Request = typeof anyRequest extends fc.Arbitrary<infer R> ? R : never;

/** Two hosts, one of which keeps to credit and takes segments, with three packs each, the last of which has no worker. */
function newCrowd() {
  const made = newRouter({ creditWindowBytes: windowBytes });
  const hosts = [hostHello, lawfulHello].map((hello) => made.join(hello));
  const packs = hosts.flatMap((host) => [made.openPack(host), made.openPack(host), made.openPack(host)]);
  const workers = packs.flatMap((pack, index) =>
    index % 3 === 2
      ? []
      : [
          made.startWorker(
            pack,
            index % 2 === 0 ? { ...workerHello, features: lawfulHello.features } : payingWorkerHello,
          ),
        ],
  );
  const peers = [...hosts, ...workers];
  const end = (peer: Joined) => {
    made.router.leave(peer.session, dead);
    peer.link.abort();
    peers.splice(peers.indexOf(peer), 1);
  };
  const ask = (peer: Joined, { method, segment, peer: other }: Request) => {
    const { segments } = made;
    if (method === "make") segments.make(peer.session, 4096 * (1 + other));
    else if (method === "seal") segments.seal(peer.session, segment);
    else if (method === "share") segments.share(peer.session, segment, other);
    else segments.drop(peer.session, segment);
  };
  return { ...made, packs, peers, end, ask };
}

test("whatever frames come, each either has its effect or ends its sender, and no call outlives the peers", () => {
  fc.assert(
    fc.property(fc.array(anyStep, { maxLength: 150 }), (history) => {
      const { router, clock, control, packs, peers, end, ask, maker } = newCrowd();
      for (const { who, sent, request, waitMs } of history) {
        const peer = peers[who];
        if (peer !== undefined && request !== undefined) refuses(() => ask(peer, request));
        if (peer !== undefined && endsIts(() => router.receive(peer.session, sent))) end(peer);
        clock.advance(waitMs);
        for (const asked of control.splice(0, waitMs % 3)) router.answer(asked, who);
      }
      for (const asked of control) router.answer(asked, null);
      for (const { call } of packs.flatMap((pack) => pack.waiting)) router.fail(call, dead);
      for (const peer of [...peers]) end(peer);
      expect([router.callsHeld, router.callsWaitedFor, maker.open.size]).toEqual([0, 0, 0]);
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

/** A request that is refused is answered by an error, whatever the reason; anything but an AirlockError fails the test. */
function refuses(action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!(error instanceof AirlockError)) throw error;
  }
}
