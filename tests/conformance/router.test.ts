/** The cases over the server's own router, in memory: the relay without its sockets and processes. */
import { describe } from "bun:test";
import { Channel } from "../../src/client/channel.ts";
import { CreditOutlet } from "../../src/client/credit.ts";
import type { Outlet } from "../../src/client/outlet.ts";
import { Pack } from "../../src/client/pack.ts";
import { PackPeer } from "../../src/client/pack-peer.ts";
import { ReferenceIds } from "../../src/client/references.ts";
import { Router } from "../../src/server/router.ts";
import type { Call, OpenPack, Session } from "../../src/server/session.ts";
import { systemClock } from "../../src/transport/clock.ts";
import { decode } from "../../src/transport/codec.ts";
import type { FrameSink } from "../../src/transport/connection.ts";
import { eventBodySchema, features, validate, workerEndedSchema } from "../../src/transport/control.ts";
import { AirlockError } from "../../src/transport/errors.ts";
import { type Frame, FrameKind, frameBody, frameCall, frameKind, framePeer } from "../../src/transport/frame.ts";
import { defaultLimits, type Limits } from "../../src/transport/limits.ts";
import { hostHello, openedAs, workerHello } from "../support/peers.ts";
import { newSegments } from "../support/segments.ts";
import { conformanceCases } from "./cases.ts";
import { type Nodes, TestWorker } from "./worker.ts";
import type { World } from "./worlds.ts";

/** One end of a connection to the router, as a peer has it. */
class PeerEnd {
  readonly session: Session;
  readonly outlet: Outlet;
  /** Takes what the router sends to the peer; nothing is said any more once it is gone. */
  receive: ((frame: Frame) => void) | undefined;

  constructor(router: Router, join: (link: FrameSink) => Session, windowBytes: number | undefined) {
    this.session = join({
      send: (frame, receipt) => {
        const copy = frame.slice();
        setImmediate(() => {
          this.#receive(copy);
          receipt?.passed(copy.byteLength);
        });
      },
      end: () => undefined,
      abort: () => undefined,
    });
    const direct: Outlet = {
      send: (frame, onLeft) => {
        const copy = frame.slice();
        setImmediate(() => {
          if (this.receive !== undefined) router.receive(this.session, copy);
        });
        onLeft?.();
      },
      withdraw: () => false,
    };
    this.outlet = windowBytes === undefined ? direct : new CreditOutlet(direct, windowBytes);
  }

  #receive(frame: Frame): void {
    if (frameKind(frame) !== FrameKind.credit) this.receive?.(frame);
    else if (this.outlet instanceof CreditOutlet) this.outlet.grant(framePeer(frame), frameCall(frame));
  }
}

const packPeer = 5;

/** A host, a router and a pack of one worker at a time, which the first call starts. */
class RoutedPack implements OpenPack {
  readonly told = (): void => undefined;
  readonly peer = packPeer;
  readonly name = "blur";
  readonly host: Session;
  readonly flow: ReturnType<Session["flowTo"]>;
  readonly callTimeout = undefined;
  readonly audience = 0;
  readonly hostEnd: PeerEnd;
  readonly nodes: Nodes = new Map();
  readonly #router: Router;
  readonly #windowBytes: number | undefined;
  readonly #limits: Limits;
  #running: { readonly worker: TestWorker; readonly end: PeerEnd; readonly number: number } | undefined;
  #lastNumber = 0;

  constructor(windowBytes: number | undefined) {
    this.#windowBytes = windowBytes;
    this.#limits = { ...defaultLimits, creditWindowBytes: windowBytes ?? defaultLimits.creditWindowBytes };
    this.#router = new Router({
      limits: this.#limits,
      clock: systemClock,
      packs: { find: () => this, get: () => this },
      ...newSegments({ packOf: () => this, notify: () => undefined }),
      onControl: (call) => this.#router.answer(call, null),
    });
    this.hostEnd = new PeerEnd(this.#router, (link) => this.#router.join(this.#hello(hostHello), link), windowBytes);
    this.host = this.hostEnd.session;
    this.flow = this.host.flowTo(this.peer, this.#limits);
  }

  #hello<Hello extends typeof hostHello>(hello: Hello): Hello {
    return { ...hello, features: this.#windowBytes === undefined ? [] : [features.credit] };
  }

  get worker(): Session | undefined {
    return this.#running?.end.session;
  }

  get running(): TestWorker {
    if (this.#running === undefined) throw new Error("no worker runs");
    return this.#running.worker;
  }

  submit(call: Call, frame: Frame): void {
    this.#running ??= this.#start();
    this.#router.deliver(call, frame, this.#running.end.session);
  }

  #start() {
    const join = (link: FrameSink): Session => this.#router.join(this.#hello(workerHello), link, this);
    const end = new PeerEnd(this.#router, join, this.#windowBytes);
    const worker = new TestWorker(this.host.peer, end.outlet, this.nodes);
    end.receive = (frame) => worker.receive(frame);
    this.#lastNumber += 1;
    return { worker, end, number: this.#lastNumber };
  }

  withdraw(): void {}

  /** Ends the worker as a crash would. */
  endWorker(): void {
    const running = this.#running;
    if (running === undefined) return;
    this.#running = undefined;
    running.end.receive = undefined;
    running.worker.end();
    this.#router.leave(running.end.session, new AirlockError("worker_died", "killed by SIGKILL"));
    this.#router.notify(this.host, "worker_ended", { pack: this.peer, number: running.number });
  }
}

function overRouter(windowBytes?: number) {
  return async (): Promise<World> => {
    const routed = new RoutedPack(windowBytes);
    const shared = { clock: systemClock, limits: defaultLimits };
    const relay: Channel = new Channel({ ...shared, outlet: routed.hostEnd.outlet, recipientOf: () => peer.pair });
    const server = { callServer: async () => null };
    const ids = new ReferenceIds();
    const peer: PackPeer = new PackPeer({ ...shared, ...server, peer: packPeer, name: "blur", relay, ids });
    routed.hostEnd.receive = (frame) => {
      if (frameKind(frame) !== FrameKind.event || framePeer(frame) !== 0) return relay.receive(frame);
      const [, value] = validate(eventBodySchema, decode(frameBody(frame)), "event");
      peer.workerEnded(validate(workerEndedSchema, value, "event worker_ended").number);
    };
    return {
      pack: new Pack(server, peer, openedAs(packPeer)),
      nodes: routed.nodes,
      get worker() {
        return routed.running;
      },
      endWorker: () => routed.endWorker(),
      async [Symbol.asyncDispose]() {
        routed.endWorker();
      },
    };
  };
}

describe("over the router", () => conformanceCases(overRouter()));
describe("over the router with credit", () => conformanceCases(overRouter(64 * 1024)));
describe("over the router with little credit", () => conformanceCases(overRouter(500)));
