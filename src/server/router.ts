/**
 * The relay: takes frames from sessions and passes them on by their header, without decoding a body.
 *
 * Owns the call table. Invariant: every call that entered is answered exactly once, by its callee or,
 * where that is impossible, by the router itself. Knows packs only as destinations, and control only as a function;
 * does no I/O but {@link FrameSink.send}.
 */
import type { Clock } from "../transport/clock.ts";
import { encode } from "../transport/codec.ts";
import type { FrameSink } from "../transport/connection.ts";
import { type Hello, type Progress, progressToWire, protocolVersions, serverPeer } from "../transport/control.ts";
import { AirlockError, errorToWire, toAirlockError } from "../transport/errors.ts";
import {
  buildFrame,
  type Frame,
  FrameKind,
  frameBody,
  frameCall,
  frameDeadlineMs,
  frameKind,
  framePeer,
  setFrameCall,
  setFrameDeadlineMs,
  setFramePeer,
} from "../transport/frame.ts";
import type { Limits } from "../transport/limits.ts";
import { CallTable } from "./call-table.ts";
import { type Call, type Destination, Session } from "./session.ts";

/** Carries out a call to the server itself; answers through {@link Router.answer} or {@link Router.fail}. */
export type ControlHandler = (call: Call, body: Uint8Array) => void;

export interface RouterOptions {
  readonly limits: Limits;
  readonly clock: Clock;
  readonly onControl: ControlHandler;
  /**
   * Where a host's calls to a number go.
   *
   * @throws AirlockError what the caller is to be told where they go nowhere.
   */
  destinationOf(host: Session, peer: number): Destination;
  /** The name of the pack that a call was made to, for errors. */
  packNameOf(call: Call): string | undefined;
  /** Tells a call's destination to forget it: it was not delivered, and nobody waits for it. */
  withdraw(call: Call): void;
}

const serverHello: Hello = { protocol: protocolVersions, features: [], role: "host", name: "server", pid: process.pid };

export class Router {
  readonly #options: RouterOptions;
  readonly #calls: CallTable;
  /** The server as a caller. */
  readonly #self = new Session(serverPeer, serverHello, {
    send: (frame) => this.#answered(frame),
    end: () => undefined,
    abort: () => undefined,
  });
  readonly #asked = new Map<number, () => void>();
  #lastAsked = 0;
  #lastPeer: number = serverPeer;
  #stopping = false;

  constructor(options: RouterOptions) {
    this.#options = options;
    this.#calls = new CallTable(options.limits, options.clock);
  }

  /** Calls whose callers still wait. */
  get callsWaitedFor(): number {
    return this.#calls.waitedFor;
  }

  /** A number for a peer or a pack; never given twice. */
  nextPeer(): number {
    this.#lastPeer += 1;
    return this.#lastPeer;
  }

  /** Lets a peer in. Its frames then go to {@link receive}, its end to {@link leave}. */
  join(hello: Hello, link: FrameSink): Session {
    return new Session(this.nextPeer(), hello, link);
  }

  /** Calls a worker's method in the server's own name. Settles when it has answered, whatever, or is gone. */
  ask(worker: Session, method: string): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#lastAsked += 1;
    const call = this.#calls.add(this.#self, this.#lastAsked, worker.peer, undefined, () => undefined);
    this.#asked.set(call.callerCall, resolve);
    this.#calls.give(call, worker);
    const body = encode([method, [], {}]);
    worker.link.send(buildFrame({ kind: FrameKind.call, peer: serverPeer, call: call.id, body }));
    return promise;
  }

  #answered(frame: Frame): void {
    const call = frameCall(frame);
    this.#asked.get(call)?.();
    this.#asked.delete(call);
  }

  /** Refuses new calls from now on; those under way go on. */
  stopTakingCalls(): void {
    this.#stopping = true;
  }

  /**
   * Takes one frame from a peer; may rewrite its header.
   *
   * @throws AirlockError where the peer broke the protocol: its connection must then be closed.
   */
  receive(from: Session, frame: Frame): void {
    switch (frameKind(frame)) {
      case FrameKind.call:
        return this.#receiveCall(from, frame);
      case FrameKind.cancel:
        return this.#receiveCancel(from, frame);
      case FrameKind.result:
      case FrameKind.error:
        return this.#receiveAnswer(from, frame);
      case FrameKind.progress:
        return this.#receiveProgress(from, frame);
      default:
        throw new AirlockError("protocol_error", `frame kind ${frameKind(frame)} is out of place here`);
    }
  }

  #receiveCall(from: Session, frame: Frame): void {
    const destination = framePeer(frame);
    const call = this.#calls.add(from, frameCall(frame), destination, frameDeadlineMs(frame), (overdue) =>
      this.#overdue(overdue),
    );
    if (this.#stopping)
      return this.fail(call, new AirlockError("server_stopping", "the server is stopping and takes no new calls"));
    if (destination === serverPeer) return this.#options.onControl(call, frameBody(frame));
    try {
      this.#options.destinationOf(from, destination).submit(call, frame);
    } catch (error) {
      this.fail(call, toAirlockError(error));
    }
  }

  #receiveCancel(from: Session, frame: Frame): void {
    const call = from.made.get(frameCall(frame));
    // A cancel that crosses the answer finds nothing; that is no fault of the peer's.
    if (call !== undefined) this.#abandon(call);
  }

  #receiveAnswer(from: Session, frame: Frame): void {
    const call = this.#givenTo(from, frame);
    const { abandoned } = call;
    this.#calls.remove(call);
    if (!abandoned) this.#forwardToCaller(call, frame);
  }

  #receiveProgress(from: Session, frame: Frame): void {
    const call = this.#givenTo(from, frame);
    if (!call.abandoned) this.#forwardToCaller(call, frame);
  }

  #givenTo(callee: Session, frame: Frame): Call {
    const call = callee.given.get(frameCall(frame));
    if (call === undefined)
      throw new AirlockError("protocol_error", `call ${frameCall(frame)} is not this peer's to answer`);
    return call;
  }

  #forwardToCaller(call: Call, frame: Frame): void {
    setFramePeer(frame, call.destination);
    setFrameCall(frame, call.callerCall);
    call.caller.link.send(frame);
  }

  /** Passes a call's frame on to the worker that will answer it. */
  deliver(call: Call, frame: Frame, worker: Session): void {
    if (call.abandoned) return;
    this.#calls.give(call, worker);
    setFramePeer(frame, call.caller.peer);
    setFrameCall(frame, call.id);
    // What it waited for its worker to start, the worker must not count again.
    if (call.deadlineAtMs !== undefined) setFrameDeadlineMs(frame, call.deadlineAtMs - this.#options.clock.nowMs());
    worker.link.send(frame);
  }

  /** Answers a call with a value of the server's own. */
  answer(call: Call, value: unknown): void {
    let body: Uint8Array;
    try {
      body = encode(value);
    } catch (error) {
      return this.fail(call, toAirlockError(error));
    }
    this.#reply(call, FrameKind.result, body);
  }

  /** Answers a call with an error of the server's own. */
  fail(call: Call, error: AirlockError): void {
    this.#reply(call, FrameKind.error, encode(errorToWire(error)));
  }

  #reply(call: Call, kind: FrameKind, body: Uint8Array): void {
    const { abandoned } = call;
    this.#calls.remove(call);
    if (!abandoned) this.#tell(call, kind, body);
  }

  /** Sends a call's caller what its destination says. */
  #tell(call: Call, kind: FrameKind, body: Uint8Array): void {
    call.caller.link.send(buildFrame({ kind, peer: call.destination, call: call.callerCall, body }));
  }

  /** Tells a call's caller how it goes. */
  progress(call: Call, progress: Progress): void {
    if (!call.abandoned) this.#tell(call, FrameKind.progress, encode(progressToWire(progress)));
  }

  #overdue(call: Call): void {
    const pack = this.#options.packNameOf(call);
    const whose = pack === undefined ? "the call" : `pack ${pack}: the call`;
    const error = new AirlockError(
      "deadline_exceeded",
      `${whose} took longer than its deadline of ${call.deadlineMs} ms`,
      {
        ...(pack !== undefined && { pack }),
        hint: "give it more time; a synchronous node goes on running, and the next call waits for it",
      },
    );
    this.#tell(call, FrameKind.error, encode(errorToWire(error)));
    this.#abandon(call);
  }

  /** The caller no longer waits; the callee is told, so that it can stop. */
  #abandon(call: Call): void {
    this.#calls.abandon(call);
    call.callee?.link.send(buildFrame({ kind: FrameKind.cancel, peer: call.caller.peer, call: call.id }));
    if (call.callee === undefined) this.#options.withdraw(call);
  }

  /** A peer is gone: its own calls are abandoned, and those it was to answer fail with `cause`. */
  leave(session: Session, cause: AirlockError): void {
    for (const call of [...session.made.values()]) this.#abandon(call);
    for (const call of [...session.given.values()]) this.fail(call, cause);
  }
}
