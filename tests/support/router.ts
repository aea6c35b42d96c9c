/** A router, hosts and workers in one process: links that record, packs whose workers come when the test says so. */
import { Router } from "../../src/server/router.ts";
import type { Call, OpenPack, Session } from "../../src/server/session.ts";
import { ManualClock } from "../../src/transport/clock.ts";
import { decode } from "../../src/transport/codec.ts";
import { features, type Hello } from "../../src/transport/control.ts";
import { AirlockError } from "../../src/transport/errors.ts";
import type { Frame } from "../../src/transport/frame.ts";
import { defaultLimits, type Limits } from "../../src/transport/limits.ts";
import { FakeLink, frame, hostHello, workerHello } from "./peers.ts";
import { FakeLane, newSegments } from "./segments.ts";

/** A pack that hands calls to its worker, or keeps them while it has none. */
export class FakePack implements OpenPack {
  readonly peer: number;
  readonly name = "blur";
  readonly host: Session;
  readonly flow: OpenPack["flow"];
  callTimeout: OpenPack["callTimeout"];
  audience = 0;
  worker: Session | undefined;
  waiting: { call: Call; frame: Frame }[] = [];
  /** Why workers were ended. */
  readonly verdicts: string[] = [];
  /** What workers told the server. */
  readonly heard: unknown[] = [];
  readonly #router: Router;

  constructor(router: Router, host: Session, limits: Limits) {
    this.#router = router;
    this.peer = router.nextPeer();
    this.host = host;
    this.flow = host.flowTo(this.peer, limits);
  }

  submit(call: Call, sent: Frame): void {
    if (this.worker === undefined) this.waiting.push({ call, frame: sent.slice() });
    else this.#router.deliver(call, sent, this.worker);
  }

  withdraw(call: Call): void {
    this.waiting = this.waiting.filter((other) => other.call !== call);
  }

  /** The worker is there: it gets what waited. */
  start(worker: Session): void {
    this.worker = worker;
    for (const { call, frame: sent } of this.waiting.splice(0)) this.#router.deliver(call, sent, worker);
  }

  told(_: Session, body: Uint8Array): void {
    this.heard.push(decode(body));
  }

  endWorker(worker: Session, verdict: string): void {
    if (worker === this.worker) this.verdicts.push(verdict);
  }
}

/** A peer that was let in. */
export interface Joined {
  readonly link: FakeLink;
  readonly session: Session;
  /** What the server passes to it, where it has the feature `line`. */
  readonly lane: FakeLane;
}

export interface JoinedPair {
  readonly host: Joined;
  readonly worker: Joined;
  readonly pack: FakePack;
  /** The pack's number. */
  readonly peer: number;
}

export function newRouter(changed: Partial<Limits> = {}) {
  const limits = { ...defaultLimits, ...changed };
  const clock = new ManualClock();
  const control: Call[] = [];
  const packs = new Map<number, FakePack>();
  const find = (host: Session, peer: number): FakePack | undefined => {
    const found = packs.get(peer);
    return found?.host === host ? found : undefined;
  };
  const get = (host: Session, peer: number): FakePack => {
    const pack = find(host, peer);
    if (pack === undefined) throw new AirlockError("pack_not_open", `peer ${peer} is no pack of this host`);
    return pack;
  };
  const onControl = (call: Call) => void control.push(call);
  const notify = (session: Session, name: string, value: unknown) => router.notify(session, name, value);
  const { segments, maker } = newSegments({ limits, packOf: get, notify });
  const router = new Router({ limits, clock, packs: { find, get }, segments, onControl });

  const join = (hello: Hello = hostHello, pack?: OpenPack): Joined => {
    const link = new FakeLink();
    const session = router.join(hello, link, pack);
    const lane = new FakeLane();
    if (hello.features.includes(features.line)) session.lane = lane.asLane;
    return { link, session, lane };
  };
  /** Opens another pack for a host. */
  const openPack = (host: Joined): FakePack => {
    const pack = new FakePack(router, host.session, limits);
    packs.set(pack.peer, pack);
    return pack;
  };
  /** Lets a worker of the pack in. */
  const startWorker = (pack: FakePack, hello: Hello = workerHello): Joined => {
    const worker = join(hello, pack);
    pack.start(worker.session);
    return worker;
  };
  /** A host with one pack, and the pack's worker. */
  const joinPair = (hello: Hello = hostHello, workersHello: Hello = workerHello): JoinedPair => {
    const host = join(hello);
    const pack = openPack(host);
    return { host, worker: startWorker(pack, workersHello), pack, peer: pack.peer };
  };
  const close = (pack: FakePack) => void packs.delete(pack.peer);
  return { clock, control, router, segments, maker, join, openPack, startWorker, joinPair, close };
}

export function newRouterWithPair(changed: Partial<Limits> = {}) {
  const made = newRouter(changed);
  return { ...made, ...made.joinPair() };
}

/** A pair with the host's call 9 under way; `id` is its number at the worker. */
export function withCall(deadlineMs?: number) {
  const made = newRouterWithPair();
  made.router.receive(made.host.session, frame("call", made.peer, 9, ["run", [], {}], { deadlineMs }));
  const id = made.worker.link.take()[0]?.call ?? 0;
  return { ...made, id };
}
