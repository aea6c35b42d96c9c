/**
 * The calls that the server is relaying: who asked, who answers, and until when.
 *
 * Invariant: a call is in the table from its CALL frame until its callee has answered or is gone. Its caller may stop
 * waiting earlier (cancelled, overdue, gone): then it is *abandoned*, its caller's number is free again, and a late
 * answer is dropped. Sends nothing itself.
 */
import type { Clock } from "../transport/clock.ts";
import type { CallTimeout } from "../transport/control.ts";
import { bindingTimeout } from "../transport/deadline.ts";
import { AirlockError } from "../transport/errors.ts";
import type { Limits } from "../transport/limits.ts";
import { CallSlots } from "./call-slots.ts";
import { noBlocks } from "./relayed-blocks.ts";
import type { Call, Session } from "./session.ts";

export class CallTable {
  readonly #limits: Limits;
  readonly #clock: Clock;
  readonly #slots: CallSlots;
  readonly #onOverdue: (call: Call) => void;

  /** @param lastId the number after which numbering begins. */
  constructor(limits: Limits, clock: Clock, onOverdue: (call: Call) => void, lastId = 0) {
    this.#limits = limits;
    this.#clock = clock;
    this.#onOverdue = onOverdue;
    this.#slots = new CallSlots(lastId);
  }

  get size(): number {
    return this.#slots.size;
  }

  /** Calls that somebody still waits for. */
  get waitedFor(): number {
    let count = 0;
    for (const call of this.#slots.all()) if (!call.abandoned) count += 1;
    return count;
  }

  /**
   * Enters a call.
   *
   * @param deadlineMs milliseconds until it is overdue; missing means for ever.
   * @throws AirlockError `protocol_error` for number 0 or one that is in use, `limit_exceeded` for one call too many.
   */
  add(caller: Session, callerCall: number, destination: number, deadlineMs?: number): Call {
    if (callerCall === 0) throw new AirlockError("protocol_error", "call number 0 is not a call");
    if (caller.made.has(callerCall))
      throw new AirlockError("protocol_error", `call number ${callerCall} is in use already`);
    // Calls that were given up count too: what they occupy is freed only when their worker answers.
    if (caller.callsInTable >= this.#limits.callsPerPeerMax) {
      throw new AirlockError(
        "limit_exceeded",
        `peer ${caller.peer} has ${caller.callsInTable} calls under way or given up and unanswered, as many as are allowed`,
      );
    }
    const call: Call = {
      id: this.#slots.freeId(),
      caller,
      callerCall,
      destination,
      pack: undefined,
      callee: undefined,
      heldBytes: 0,
      blocks: noBlocks,
      abandoned: false,
      deadlineMs,
      deadlineAtMs: deadlineMs === undefined ? undefined : this.#clock.nowMs() + deadlineMs,
      callTimeout: undefined,
      timer: undefined,
    };
    if (deadlineMs !== undefined) call.timer = this.#clock.after(deadlineMs, () => this.#onOverdue(call));
    this.#slots.put(call);
    caller.callsInTable += 1;
    caller.made.set(callerCall, call);
    return call;
  }

  /** The call that has the server's number `id`. */
  find(id: number): Call | undefined {
    return this.#slots.find(id);
  }

  /** Gives a call no more than its pack's time from now on. */
  bound(call: Call, callTimeout: CallTimeout): void {
    const leftMs = call.deadlineAtMs === undefined ? undefined : call.deadlineAtMs - this.#clock.nowMs();
    if (bindingTimeout(leftMs, callTimeout) === undefined) return;
    call.timer?.cancel();
    call.callTimeout = callTimeout;
    call.deadlineMs = callTimeout.ms;
    call.deadlineAtMs = this.#clock.nowMs() + callTimeout.ms;
    call.timer = this.#clock.after(callTimeout.ms, () => this.#onOverdue(call));
  }

  /** The calls that a peer was given and has not answered. */
  givenTo(callee: Session): Call[] {
    return callee.callsOwed === 0 ? [] : this.#slots.all().filter((call) => call.callee === callee);
  }

  /** Hands the call to the peer that will answer it. */
  give(call: Call, callee: Session): void {
    call.callee = callee;
    callee.callsOwed += 1;
  }

  /** Nobody waits for the answer any more. */
  abandon(call: Call): void {
    call.timer?.cancel();
    if (call.abandoned) return;
    call.abandoned = true;
    call.caller.made.delete(call.callerCall);
    if (call.callee === undefined) this.#forget(call);
  }

  /** The call is answered, or will never be. */
  remove(call: Call): void {
    this.abandon(call);
    this.#forget(call);
  }

  #forget(call: Call): void {
    if (!this.#slots.remove(call)) return;
    call.caller.callsInTable -= 1;
    if (call.callee !== undefined) call.callee.callsOwed -= 1;
  }
}
