/**
 * The calls that the server is relaying: who asked, who answers, and until when.
 *
 * Invariant: a call is in the table from its CALL frame until its callee has answered or is gone. Its caller may stop
 * waiting earlier (cancelled, overdue, gone): then it is *abandoned*, its caller's number is free again, and a late
 * answer is dropped. Sends nothing itself.
 */
import type { Clock } from "../transport/clock.ts";
import { AirlockError } from "../transport/errors.ts";
import type { Limits } from "../transport/limits.ts";
import type { Call, Session } from "./session.ts";

export class CallTable {
  readonly #limits: Limits;
  readonly #clock: Clock;
  readonly #calls = new Map<number, Call>();
  #lastId: number;

  /** @param lastId the number after which numbering begins. */
  constructor(limits: Limits, clock: Clock, lastId = 0) {
    this.#limits = limits;
    this.#clock = clock;
    this.#lastId = lastId;
  }

  get size(): number {
    return this.#calls.size;
  }

  /** Calls that somebody still waits for. */
  get waitedFor(): number {
    let count = 0;
    for (const call of this.#calls.values()) if (!call.abandoned) count += 1;
    return count;
  }

  /**
   * Enters a call.
   *
   * @param deadlineMs milliseconds until `onOverdue`; missing means for ever.
   * @throws AirlockError `protocol_error` for number 0 or one that is in use, `limit_exceeded` for one call too many.
   */
  add(
    caller: Session,
    callerCall: number,
    destination: number,
    deadlineMs: number | undefined,
    onOverdue: (call: Call) => void,
  ): Call {
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
      id: this.#freeId(),
      caller,
      callerCall,
      destination,
      callee: undefined,
      abandoned: false,
      deadlineMs,
      deadlineAtMs: deadlineMs === undefined ? undefined : this.#clock.nowMs() + deadlineMs,
      timer: undefined,
    };
    if (deadlineMs !== undefined) call.timer = this.#clock.after(deadlineMs, () => onOverdue(call));
    this.#calls.set(call.id, call);
    caller.callsInTable += 1;
    caller.made.set(callerCall, call);
    return call;
  }

  /** Numbers wrap after 2³² calls; one that is still in use is passed over. */
  #freeId(): number {
    do {
      this.#lastId = (this.#lastId + 1) >>> 0;
    } while (this.#lastId === 0 || this.#calls.has(this.#lastId));
    return this.#lastId;
  }

  /** Hands the call to the peer that will answer it. */
  give(call: Call, callee: Session): void {
    call.callee = callee;
    callee.given.set(call.id, call);
  }

  /** Nobody waits for the answer any more. */
  abandon(call: Call): void {
    call.abandoned = true;
    call.timer?.cancel();
    if (call.caller.made.get(call.callerCall) === call) call.caller.made.delete(call.callerCall);
    if (call.callee === undefined) this.#forget(call);
  }

  /** The call is answered, or will never be. */
  remove(call: Call): void {
    this.abandon(call);
    call.callee?.given.delete(call.id);
    this.#forget(call);
  }

  #forget(call: Call): void {
    if (this.#calls.delete(call.id)) call.caller.callsInTable -= 1;
  }
}
