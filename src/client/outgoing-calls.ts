/**
 * The calls that this side makes over one channel: their numbers, deadlines and answers.
 *
 * Invariant: a call ends once, with its answer, its caller's change of mind, its deadline, or the channel's end. Answers
 * are read as they arrive, in order: what stands behind one may be the release of an object that it brings home.
 */
import type { Clock, Timer } from "../transport/clock.ts";
import { decode } from "../transport/codec.ts";
import { type CallTimeout, progressSchema, validate } from "../transport/control.ts";
import { bindingTimeout, deadlineExceeded } from "../transport/deadline.ts";
import { type AirlockError, errorFromWire, isUndelivered, toAirlockError } from "../transport/errors.ts";
import { buildFrame, type Frame, FrameKind, frameCall, frameKind } from "../transport/frame.ts";
import type { CallOptions } from "./call-options.ts";
import { type IncomingCall, runWithin } from "./incoming-call.ts";
import type { PairLeases } from "./memory/pair-leases.ts";
import type { Placed } from "./memory/placed.ts";
import type { Outlet } from "./outlet.ts";
import { discardBody, type ReadBody, type ReceivedBody, readBody, receivedBody } from "./received-body.ts";
import type { References } from "./references.ts";

/** The channel ended before anything of the call was sent: it may go another way. */
export class Unsent extends Error {
  override readonly name = "Unsent";
}

/** The callee can't look at the blocks that the call names, and was not given it: it may be sent without any. */
export class BlocksRefused extends Error {
  override readonly name = "BlocksRefused";
}

export interface CallRequest<T> {
  /** Who answers it. */
  readonly peer: number;
  readonly body: readonly Uint8Array[];
  readonly hasReferences: boolean;
  /** What may follow the header of its frame. */
  readonly bytesMax: number;
  /** The call of the addressee's that it is made for. */
  readonly parent?: IncomingCall | undefined;
  /** The call in which it is made, whoever's that is; it ends with it. */
  readonly within?: IncomingCall | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly deadlineMs?: number | undefined;
  /** The time that the pack gives its calls, where nobody else keeps that. */
  readonly callTimeout?: CallTimeout | undefined;
  readonly onProgress?: CallOptions["onProgress"] | undefined;
  /** Told once it can't be taken back any more. */
  readonly onLeft?: () => void;
  /** Told where it left, and was given to nobody. */
  readonly onUndelivered?: () => void;
  /** What answers the references in its answer, at the time of that; missing where there can be none. */
  readonly references: () => References | undefined;
  /** What counts the blocks that its answer names, at the time of that; missing where there can be none. */
  readonly leases?: () => PairLeases | undefined;
  /** Its arrays, where it has a table of them. */
  readonly placed?: Placed | undefined;
  /** Reads a result as it arrives. */
  readonly read: ReadBody<T>;
  /** Whatever must stay reachable until it is answered. */
  readonly keep?: unknown;
  /** Name of the pack that it is made to, for errors. */
  readonly pack?: string | undefined;
}

/** A call that was sent, or waits for it, and has no answer. */
export class OutgoingCall {
  readonly number: number;
  readonly request: CallRequest<unknown>;
  readonly deadlineAtMs: number | undefined;
  readonly resolve: (value: unknown) => void;
  readonly reject: (reason: unknown) => void;
  /** Calls that its callee makes for it: they end with it. */
  readonly children = new Set<IncomingCall>();
  /** Its frame, as long as that can be taken back. */
  frame: Frame | undefined;

  constructor(
    number: number,
    request: CallRequest<unknown>,
    deadlineAtMs: number | undefined,
    promise: Pick<PromiseWithResolvers<unknown>, "resolve" | "reject">,
  ) {
    this.number = number;
    this.request = request;
    this.deadlineAtMs = deadlineAtMs;
    this.resolve = promise.resolve;
    this.reject = promise.reject;
  }

  get within(): IncomingCall | undefined {
    return this.request.within;
  }
}

export class OutgoingCalls {
  readonly #outlet: Outlet;
  readonly #clock: Clock;
  readonly #graceMs: number;
  readonly #onOverdue: (() => void) | undefined;
  readonly #pending = new Map<number, OutgoingCall>();
  /** Calls that were given up and that their callee has not answered. */
  readonly #abandoned = new Map<number, Timer>();
  /** Told once when no call is under way. */
  #onNone: (() => void) | undefined;
  #lastNumber = 0;
  /** Why no call is taken any more. */
  #ended: Error | undefined;

  /** @param onOverdue told when the callee has not answered for long what was given up; nobody, where others look to it. */
  /** @param graceMs how long a callee may take to answer a call that was given up, before `onOverdue`. */
  constructor(outlet: Outlet, clock: Clock, graceMs: number, onOverdue: (() => void) | undefined) {
    this.#outlet = outlet;
    this.#clock = clock;
    this.#graceMs = graceMs;
    this.#onOverdue = onOverdue;
  }

  get size(): number {
    return this.#pending.size;
  }

  /** The arrays that unanswered calls have sent to a pair. */
  placedFor(leases: PairLeases): Placed[] {
    const placed = [...this.#pending.values()].map(({ request }) => request.placed);
    return placed.filter((each) => each?.pair === leases).filter((each) => each !== undefined);
  }

  find(number: number): OutgoingCall | undefined {
    return this.#pending.get(number);
  }

  /** Settles when no call is under way. */
  async none(): Promise<void> {
    if (this.#pending.size === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onNone = resolve;
    await promise;
  }

  /** The call has its answer, or is given up. */
  #remove(number: number): boolean {
    const isKnown = this.#pending.delete(number);
    if (this.#pending.size === 0) this.#onNone?.();
    return isKnown;
  }

  /**
   * Makes a call.
   *
   * @throws AirlockError as the callee answers, `limit_exceeded` where it is too long for a frame, `deadline_exceeded`;
   * Unsent where the channel has ended; or a signal's reason.
   */
  async call<T>(request: CallRequest<T>): Promise<T> {
    if (this.#ended !== undefined) throw this.#ended;
    const signals = [request.signal, request.within?.signal].filter((each) => each !== undefined);
    for (const signal of signals) signal.throwIfAborted();
    const ownMs = this.#deadlineMs(request);
    const callTimeout = bindingTimeout(ownMs, request.callTimeout);
    const deadlineMs = callTimeout?.ms ?? ownMs;
    const number = this.#freeNumber();
    const frame = frameOf(request, number, deadlineMs);
    const { promise, ...settle } = Promise.withResolvers<unknown>();
    const deadlineAtMs = deadlineMs === undefined ? undefined : this.#clock.nowMs() + deadlineMs;
    const call = new OutgoingCall(number, request, deadlineAtMs, settle);
    const abandon = (event: Event): void => this.#giveUp(call, (event.target as AbortSignal).reason);
    for (const signal of signals) signal.addEventListener("abort", abandon, { once: true });
    const timer =
      deadlineMs === undefined
        ? undefined
        : this.#clock.after(deadlineMs, () => {
            const overdue = { pack: request.pack, deadlineMs, callTimeout, graceMs: this.#graceMs };
            this.#giveUp(call, deadlineExceeded(overdue));
          });
    this.#pending.set(number, call);
    this.#send(call, frame);
    try {
      return (await promise) as T;
    } finally {
      timer?.cancel();
      for (const signal of signals) signal.removeEventListener("abort", abandon);
    }
  }

  /** What it asks for, and no more than is left of the call that it is made in. */
  #deadlineMs({ deadlineMs, within }: CallRequest<unknown>): number | undefined {
    if (within?.deadlineAtMs === undefined) return deadlineMs;
    const leftMs = Math.max(0, Math.ceil(within.deadlineAtMs - this.#clock.nowMs()));
    return Math.min(deadlineMs ?? leftMs, leftMs);
  }

  /** One that was given up stays in use until it is answered: its late answer must find nobody. */
  #freeNumber(): number {
    do {
      this.#lastNumber = (this.#lastNumber + 1) >>> 0;
    } while (this.#lastNumber === 0 || this.#pending.has(this.#lastNumber) || this.#abandoned.has(this.#lastNumber));
    return this.#lastNumber;
  }

  #send(call: OutgoingCall, frame: Frame): void {
    call.frame = frame;
    this.#outlet.send(frame, () => {
      call.frame = undefined;
      call.request.onLeft?.();
    });
  }

  #giveUp(call: OutgoingCall, reason: unknown): void {
    if (!this.#remove(call.number)) return;
    this.#tellCallee(call);
    this.#settle(call, reason);
  }

  #tellCallee(call: OutgoingCall): void {
    if (call.frame !== undefined && this.#outlet.withdraw(call.frame)) return;
    if (this.#ended !== undefined) return;
    this.#outlet.send(buildFrame({ kind: FrameKind.cancel, peer: call.request.peer, call: call.number }));
    const onOverdue = this.#onOverdue;
    if (onOverdue !== undefined) this.#abandoned.set(call.number, this.#clock.after(this.#graceMs, onOverdue));
  }

  /** Fails a call, and with it those that its callee has made for it. */
  #settle(call: OutgoingCall, reason: unknown): void {
    call.reject(reason);
    for (const child of call.children) child.cancel();
  }

  /** Takes a RESULT, ERROR or PROGRESS; false where nobody waits for it. */
  receive(frame: Frame): boolean {
    const number = frameCall(frame);
    const call = this.#pending.get(number);
    const isProgress = frameKind(frame) === FrameKind.progress;
    if (call === undefined) {
      if (!isProgress) this.#forget(number);
      return false;
    }
    // The frame is a view into the socket's buffer; what a caller gets must stay.
    const body = receivedBody(frame);
    if (isProgress) this.#receiveProgress(call, body);
    else this.#receiveAnswer(call, frameKind(frame) === FrameKind.result, body);
    return true;
  }

  #forget(number: number): void {
    this.#abandoned.get(number)?.cancel();
    this.#abandoned.delete(number);
  }

  #receiveAnswer(call: OutgoingCall, isResult: boolean, body: ReceivedBody): void {
    this.#remove(call.number);
    const { request } = call;
    try {
      const references = request.references();
      if (isResult) call.resolve(readBody(body, references, request.leases?.(), request.read));
      else this.#receiveError(call, readBody(body, references, request.leases?.(), decode));
    } catch (error) {
      call.reject(toAirlockError(error));
    }
  }

  #receiveError(call: OutgoingCall, body: unknown): void {
    const { onUndelivered, placed, pack } = call.request;
    const error = errorFromWire(body);
    if (isUndelivered(body)) {
      onUndelivered?.();
      if (placed !== undefined && error.code === "value_unsupported") return call.reject(new BlocksRefused());
    }
    if (error.code === "worker_died" && [undefined, pack].includes(error.details.pack)) placed?.died();
    call.reject(error);
  }

  /** Progress that makes no sense, or that its listener chokes on, ends that call and no other. */
  #receiveProgress(call: OutgoingCall, body: ReceivedBody): void {
    const { onProgress, within, leases } = call.request;
    const references = call.request.references();
    if (onProgress === undefined) return discardBody(body, references, leases?.());
    try {
      const progress = validate(progressSchema, readBody(body, references, leases?.(), decode), "progress");
      runWithin(within, () => onProgress(progress));
    } catch (error) {
      this.#giveUp(call, error);
    }
  }

  /**
   * Takes no more calls, and gives those back of which nothing was sent.
   *
   * @param unsent what they, and calls to come, are told.
   */
  beginEnd(unsent: Error): void {
    this.#ended ??= unsent;
    for (const timer of this.#abandoned.values()) timer.cancel();
    this.#abandoned.clear();
    for (const call of this.#pending.values()) {
      if (call.frame === undefined || !this.#outlet.withdraw(call.frame)) continue;
      this.#remove(call.number);
      call.reject(unsent);
    }
  }

  /** Fails the calls that nobody will answer any more. */
  end(reason: AirlockError): void {
    this.#ended ??= reason;
    this.beginEnd(reason);
    const calls = [...this.#pending.values()];
    this.#pending.clear();
    this.#onNone?.();
    for (const call of calls) this.#settle(call, reason);
  }
}

function frameOf(request: CallRequest<unknown>, number: number, deadlineMs: number | undefined): Frame {
  const { peer, body, hasReferences, placed, parent, bytesMax } = request;
  const fields = { kind: FrameKind.call, peer, call: number, deadlineMs, parent: parent?.number, hasReferences, body };
  const attachments = placed?.attachments;
  return buildFrame({ ...fields, hasArrays: placed !== undefined, attachments }, bytesMax);
}
