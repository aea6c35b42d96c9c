/**
 * The relay: takes frames from sessions and passes them on by their header, without decoding a body.
 *
 * Owns the call table. Invariant: every call that entered is answered exactly once, by its callee or,
 * where that is impossible, by the router itself; and what a frame took of its sender's credit is given back once.
 * Knows packs only as what joins a host and a worker, and control only as a function; does no I/O but
 * {@link FrameSink.send}.
 */
import type { Clock } from "../transport/clock.ts";
import { encode } from "../transport/codec.ts";
import type { FrameSink } from "../transport/connection.ts";
import { type Hello, type Progress, progressToWire, serverPeer } from "../transport/control.ts";
import { deadlineExceeded } from "../transport/deadline.ts";
import { AirlockError, errorToWire, toAirlockError } from "../transport/errors.ts";
import {
  type Attachment,
  buildFrame,
  type Frame,
  FrameKind,
  frameBody,
  frameCall,
  frameDeadlineMs,
  frameHasReferences,
  frameKind,
  frameParent,
  framePeer,
  setFrameCall,
  setFrameDeadlineMs,
  setFrameKind,
  setFrameParent,
  setFramePeer,
} from "../transport/frame.ts";
import type { Limits } from "../transport/limits.ts";
import { CallTable } from "./call-table.ts";
import { type CreditWindow, creditFrame } from "./flow.ts";
import { News } from "./news.ts";
import { Questions } from "./questions.ts";
import { noBlocks, RelayedBlocks } from "./relayed-blocks.ts";
import type { Segments } from "./segments.ts";
import { type Call, flowFrom, type OpenPack, Session } from "./session.ts";
import { ownErrorBody, stoppingError } from "./slot-errors.ts";

/** Carries out a call to the server itself; answers through {@link Router.answer} or {@link Router.fail}. */
export type ControlHandler = (call: Call, body: Uint8Array) => void;

/** The packs that hosts have open. */
export interface OpenPacks {
  find(host: Session, peer: number): OpenPack | undefined;
  /** @throws AirlockError `pack_not_open`. */
  get(host: Session, peer: number): OpenPack;
}

export interface RouterOptions {
  readonly limits: Limits;
  readonly clock: Clock;
  readonly packs: OpenPacks;
  readonly segments: Segments;
  readonly onControl: ControlHandler;
}

export class Router {
  readonly #options: RouterOptions;
  readonly #calls: CallTable;
  readonly #questions: Questions;
  readonly #blocks: RelayedBlocks;
  readonly #news: News;
  #lastPeer: number = serverPeer;
  #stopping = false;

  constructor(options: RouterOptions) {
    this.#options = options;
    this.#calls = new CallTable(options.limits, options.clock, (call) => this.#overdue(call));
    this.#questions = new Questions(this.#calls, options.limits, options.clock);
    this.#blocks = new RelayedBlocks(options.segments);
    const findPack = (host: Session, peer: number) => options.packs.find(host, peer);
    this.#news = new News({ blocks: this.#blocks, findPack });
  }

  /** Calls whose callers still wait; the server's own questions aside. */
  get callsWaitedFor(): number {
    return this.#calls.waitedFor - this.#questions.count;
  }

  /** Calls in the table: those waited for, and those that were given up and not answered yet. */
  get callsHeld(): number {
    return this.#calls.size;
  }

  /** A number for a peer or a pack; never given twice. */
  nextPeer(): number {
    this.#lastPeer += 1;
    return this.#lastPeer;
  }

  /**
   * Lets a peer in. Its frames then go to {@link receive}, its end to {@link leave}.
   *
   * @param pack what it runs, where it is a worker.
   */
  join(hello: Hello, link: FrameSink, pack?: OpenPack): Session {
    return new Session(this.nextPeer(), hello, link, this.#options.limits, pack);
  }

  /** Calls a worker's method in the server's own name; {@link Questions.ask} says how that ends. */
  ask(worker: Session, method: string, withinMs?: number, keywords?: object): Promise<unknown> {
    return this.#questions.ask(worker, method, withinMs, keywords);
  }

  /** Calls that a worker was given and has not answered, other than the server's own. */
  callsOf(worker: Session): number {
    return this.#calls.givenTo(worker).filter((call) => !this.#questions.isAsker(call)).length;
  }

  /** Refuses new calls of peers from now on; those under way go on, and so do those that are made for them. */
  stopTakingCalls(): void {
    this.#stopping = true;
  }

  /** Tells a peer what it did not ask for. */
  notify(session: Session, name: string, value: unknown): void {
    const body = encode([name, value]);
    session.link.send(buildFrame({ kind: FrameKind.event, peer: serverPeer, call: 0, body }));
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
      case FrameKind.event:
      case FrameKind.release:
      case FrameKind.return:
      case FrameKind.reclaim:
        return this.#news.receive(from, frame);
      default:
        throw new AirlockError("protocol_error", `frame kind ${frameKind(frame)} is out of place here`);
    }
  }

  #receiveCall(from: Session, frame: Frame): void {
    const destination = framePeer(frame);
    const call = this.#calls.add(from, frameCall(frame), destination, frameDeadlineMs(frame));
    if (destination === serverPeer) return this.#receiveControl(call, frame);
    try {
      call.pack = this.#packBetween(from, destination);
    } catch (error) {
      if (from.keepsToCredit) from.link.send(creditFrame(destination, frame.byteLength));
      call.blocks = this.#blocks.named(from, frame);
      this.fail(call, toAirlockError(error));
      return;
    }
    flowFrom(from, call.pack)?.window.take(frame.byteLength);
    call.heldBytes = frame.byteLength;
    call.blocks = this.#blocks.check(from, frame, destination);
    const refusal = this.#refusalOf(call, frame);
    if (refusal !== undefined) this.fail(call, refusal);
    else if (from.pack === undefined) call.pack.submit(call, frame);
    else this.deliver(call, frame, call.pack.host);
  }

  #receiveControl(call: Call, frame: Frame): void {
    const parent = frameParent(frame);
    if (parent !== undefined)
      throw new AirlockError(
        "protocol_error",
        `call ${call.callerCall} is to the server, which made no call ${parent}`,
      );
    if (this.#blocks.named(call.caller, frame) !== noBlocks) {
      throw new AirlockError("protocol_error", `call ${call.callerCall} is to the server, and has attachments`);
    }
    this.#options.onControl(call, frameBody(frame));
  }

  /**
   * The pack by which `from` reaches the peer of this number.
   *
   * @throws AirlockError `pack_not_open` for a host, `unauthorized` for a worker that calls anybody but its host.
   */
  #packBetween(from: Session, peer: number): OpenPack {
    const { pack } = from;
    if (pack === undefined) return this.#options.packs.get(from, peer);
    if (pack.host.peer === peer) return pack;
    const message = `pack ${pack.name}: its worker may call its host (peer ${pack.host.peer}) alone, not peer ${peer}`;
    throw new AirlockError("unauthorized", message, { pack: pack.name });
  }

  /** Why a call that was addressed well is not passed on; translates the number of its parent. */
  #refusalOf(call: Call, frame: Frame): AirlockError | undefined {
    const number = frameParent(frame);
    const parent = number === undefined ? undefined : this.#parentOf(call, number);
    if (number !== undefined && parent === undefined) {
      const message = `call ${call.callerCall} was made for call ${number}, which is no longer under way`;
      return new AirlockError("cancelled", message);
    }
    if (parent !== undefined) setFrameParent(frame, parent.callerCall);
    else if (this.#stopping) return stoppingError();
    return undefined;
  }

  /**
   * The call on whose behalf another is made, while it is under way.
   *
   * That it was answered, or given up, may cross this call. Naming a call that somebody else was given, or made, can't.
   *
   * @throws AirlockError `protocol_error`.
   */
  #parentOf(call: Call, number: number): Call | undefined {
    const parent = this.#calls.find(number);
    if (parent !== undefined && (parent.callee !== call.caller || parent.pack !== call.pack)) {
      const whose = `call ${number}, which peer ${call.destination} did not ask of this peer`;
      throw new AirlockError("protocol_error", `call ${call.callerCall} names as its parent ${whose}`);
    }
    if (parent === undefined || parent.abandoned) return undefined;
    // A worker that has ended may still be owed answers, while calls wait for the next one already.
    const addressee = call.caller.pack === undefined ? call.pack?.worker : call.pack?.host;
    return parent.caller === addressee ? parent : undefined;
  }

  #receiveCancel(from: Session, frame: Frame): void {
    const call = from.made.get(frameCall(frame));
    // A cancel that crosses the answer finds nothing; that is no fault of the peer's.
    if (call !== undefined) this.#abandon(call);
  }

  #receiveAnswer(from: Session, frame: Frame): void {
    const call = this.#givenTo(from, frame);
    // Before the call is over: an answer that breaks the rules is none, and its caller waits for another.
    const window = flowFrom(from, call.pack)?.window;
    window?.take(frame.byteLength);
    const blocks = this.#blocks.check(from, frame, call.caller.knownAs);
    const { abandoned } = call;
    this.#calls.remove(call);
    this.#forwardToCaller({ call, frame, window, blocks, isLate: abandoned });
  }

  #receiveProgress(from: Session, frame: Frame): void {
    const call = this.#givenTo(from, frame);
    const window = flowFrom(from, call.pack)?.window;
    window?.take(frame.byteLength);
    const blocks = this.#blocks.check(from, frame, call.caller.knownAs);
    this.#forwardToCaller({ call, frame, window, blocks, isLate: call.abandoned });
  }

  #givenTo(callee: Session, frame: Frame): Call {
    const call = this.#calls.find(frameCall(frame));
    if (call?.callee !== callee)
      throw new AirlockError("protocol_error", `call ${frameCall(frame)} is not this peer's to answer`);
    return call;
  }

  #forwardToCaller(answer: Forwarded): void {
    const { call, frame, window, blocks, isLate } = answer;
    if (isLate && !frameHasReferences(frame)) return this.#drop(answer);
    const problem = this.#blocks.pass(call.caller, blocks);
    if (problem !== undefined) {
      this.#drop(answer);
      if (!isLate && frameKind(frame) === FrameKind.result) {
        this.#tell(call, FrameKind.error, encode(errorToWire(problem)));
      }
      return;
    }
    setFramePeer(frame, call.destination);
    setFrameCall(frame, isLate ? lateCall : call.callerCall);
    // Nobody waits for it. What it holds is released by the caller, who may have given its number to another call.
    if (isLate) setFrameKind(frame, FrameKind.result);
    call.caller.link.send(frame, window);
  }

  /** What a callee sent is not delivered. */
  #drop({ call, frame, window, blocks }: Forwarded): void {
    window?.passed(frame.byteLength);
    const { caller, callee } = call;
    // With a caller that is gone all that it held is released: the next worker in its place may hold the same blocks.
    if (callee !== undefined && !caller.isGone) this.#blocks.giveBack(callee, caller.knownAs, blocks);
  }

  /** Passes a call's frame on to the peer that will answer it. */
  deliver(call: Call, frame: Frame, callee: Session): void {
    if (call.abandoned) return;
    if (callee.isGone) return this.fail(call, new AirlockError("disconnected", `peer ${call.destination} is gone`));
    const problem = this.#blocks.pass(callee, call.blocks);
    if (problem !== undefined) return this.fail(call, problem);
    call.blocks = noBlocks;
    this.#calls.give(call, callee);
    if (callee.pack?.callTimeout !== undefined) this.#calls.bound(call, callee.pack.callTimeout);
    setFramePeer(frame, call.caller.knownAs);
    setFrameCall(frame, call.id);
    // What it waited for its worker to start, the worker must not count again. A frame that has no room for its pack's
    // limit goes without: when time is up, its worker is told to cancel it, and what it has called ends with it.
    if (call.deadlineAtMs !== undefined && frameDeadlineMs(frame) !== undefined)
      setFrameDeadlineMs(frame, call.deadlineAtMs - this.#options.clock.nowMs());
    call.heldBytes = 0;
    callee.link.send(frame, flowFrom(call.caller, call.pack)?.window);
  }

  /** The call's frame will not be delivered: nothing of it is held any more. */
  #letGo(call: Call): void {
    this.#blocks.giveBack(call.caller, call.destination, call.blocks);
    call.blocks = noBlocks;
    if (call.heldBytes === 0) return;
    flowFrom(call.caller, call.pack)?.window.passed(call.heldBytes);
    call.heldBytes = 0;
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
    this.#reply(call, FrameKind.error, ownErrorBody(call, error));
  }

  #reply(call: Call, kind: FrameKind, body: Uint8Array): void {
    const { abandoned } = call;
    this.#calls.remove(call);
    this.#letGo(call);
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
    const pack = call.caller.pack === undefined ? call.pack?.name : undefined;
    const { deadlineMs = 0, callTimeout } = call;
    // Before the answer, after which the caller may have given the blocks to the next worker.
    if (call.callee === undefined) this.#letGo(call);
    const error = deadlineExceeded({ pack, deadlineMs, callTimeout, graceMs: this.#options.limits.graceMs });
    this.#tell(call, FrameKind.error, ownErrorBody(call, error));
    this.#abandon(call);
  }

  /** The caller no longer waits; the callee is told, so that it can stop. */
  #abandon(call: Call): void {
    this.#calls.abandon(call);
    const { callee } = call;
    if (callee === undefined) {
      call.pack?.withdraw(call);
      this.#letGo(call);
      return;
    }
    callee.link.send(buildFrame({ kind: FrameKind.cancel, peer: call.caller.knownAs, call: call.id }));
    const { pack } = callee;
    if (pack === undefined) return;
    const { graceMs } = this.#options.limits;
    const overdue = `it had not answered a call ${graceMs / 1000} s after that was cancelled or overdue`;
    call.timer = this.#options.clock.after(graceMs, () => pack.endWorker(callee, `ended by the server: ${overdue}`));
  }

  /** A peer is gone: its own calls are abandoned, and those it was to answer fail with `cause`. */
  leave(session: Session, cause: AirlockError): void {
    session.isGone = true;
    for (const call of [...session.made.values()]) this.#abandon(call);
    for (const call of this.#calls.givenTo(session)) this.fail(call, cause);
    this.#options.segments.left(session);
  }
}

/** What a frame that is an answer too late has in place of its call's number, which may be another call's by now. */
const lateCall = 0;

/** What a callee sent for a call. */
interface Forwarded {
  readonly call: Call;
  readonly frame: Frame;
  /** What gave the credit for it. */
  readonly window: CreditWindow | undefined;
  readonly blocks: readonly Attachment[];
  /** The caller no longer waits. */
  readonly isLate: boolean;
}
