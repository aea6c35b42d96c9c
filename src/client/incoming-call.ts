/**
 * A call that a pack has made to this host: what it is made for, and how its answer goes back.
 *
 * Invariant: it is answered once. Whatever runs on its behalf finds it by {@link callInProgress}, across awaits, so that
 * calls made there are nested in it and end with it.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { AirlockError } from "../transport/errors.ts";
import type { OutgoingBody } from "./outgoing-body.ts";

/** What a callback may know of the call that it answers, and say about it. */
export interface CurrentCall {
  /** Aborted when nobody waits for the answer any more: whoever called was cancelled, is overdue or gone. */
  readonly signal: AbortSignal;
  /** Tells whoever called how it goes. Of reports that wait for a slow reader only the last one is kept. */
  progress(report: ProgressReport): void;
}

export interface ProgressReport {
  readonly message?: string;
  /** A word for where it is; `running` by default. */
  readonly stage?: string;
  /** How far it is, and of how much. */
  readonly value?: number;
  readonly total?: number;
}

/** The call that another one was made for, as far as one nested in it has to know. */
interface Parent {
  /** The call in which it was made itself. */
  readonly within: IncomingCall | undefined;
  readonly deadlineAtMs: number | undefined;
}

/** Sends what is said about one call. */
export interface Replier {
  /** @throws AirlockError `limit_exceeded` where it is too long for a frame; nothing was sent then. */
  result(body: OutgoingBody): void;
  fail(thrown: unknown): void;
  progress(report: ProgressReport): void;
}

export interface IncomingCallParts {
  readonly replier: Replier;
  /** The pair that it came from. */
  readonly pair: object;
  /** What it came over. */
  readonly channel: object;
  /** Its number on that channel. */
  readonly number: number;
  readonly parent: Parent | undefined;
  readonly deadlineAtMs: number | undefined;
}

export class IncomingCall implements CurrentCall {
  readonly #parts: IncomingCallParts;
  readonly #abort = new AbortController();
  #isUnderWay = true;

  constructor(parts: IncomingCallParts) {
    this.#parts = parts;
  }

  get number(): number {
    return this.#parts.number;
  }

  get channel(): object {
    return this.#parts.channel;
  }

  /** The clock's time at which nobody waits for it any more. */
  get deadlineAtMs(): number | undefined {
    return this.#parts.deadlineAtMs;
  }

  get isUnderWay(): boolean {
    return this.#isUnderWay;
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** The nearest call of a pair that this one is carried out for and that waits for an answer: itself, or one further up. */
  nearestOf(pair: object): IncomingCall | undefined {
    for (let call: IncomingCall | undefined = this; call !== undefined; call = call.#parts.parent?.within) {
      if (call.#parts.pair === pair && call.#isUnderWay) return call;
    }
    return undefined;
  }

  progress(report: ProgressReport): void {
    if (this.#isUnderWay) this.#parts.replier.progress(report);
  }

  /**
   * Answers it; false where that was done before.
   *
   * @throws AirlockError `limit_exceeded` where the result is too long for a frame; it waits for another answer then.
   */
  result(body: OutgoingBody): boolean {
    if (!this.#isUnderWay) return false;
    this.#parts.replier.result(body);
    this.#isUnderWay = false;
    return true;
  }

  /** Answers it with what was thrown, unless it was answered. */
  fail(thrown: unknown): void {
    if (!this.#isUnderWay) return;
    this.#isUnderWay = false;
    this.#parts.replier.fail(thrown);
  }

  /** Nobody waits any more: what runs on its behalf is told, and it is answered for good. */
  cancel(reason = new AirlockError("cancelled", "the call was cancelled")): void {
    if (!this.#isUnderWay) return;
    this.fail(reason);
    this.#abort.abort(reason);
  }
}

/** The one thing here that belongs to the process: which call each line of asynchronous work is done for. */
const inProgress = new AsyncLocalStorage<IncomingCall | undefined>();

/** The call that the running code works for, if it does for one. */
export function callInProgress(): IncomingCall | undefined {
  return inProgress.getStore();
}

/** Runs `action`, and all that it starts, on behalf of a call, or of none. */
export function runWithin<T>(call: IncomingCall | undefined, action: () => T): T {
  return inProgress.run(call, action);
}

/** The call of a pack that the running code answers; undefined outside of a callback. */
export function currentCall(): CurrentCall | undefined {
  return callInProgress();
}
