/**
 * How much of the server's time all that workers write may take together.
 *
 * Invariant: after so many milliseconds of work on output the next piece waits for {@link restPerWork} times as long, so
 * that calls find the loop free most of the time. A pack that writes faster than that is held back by its own pipe, as a
 * terminal would hold it back. One pace serves all workers of a server.
 */
import type { Clock } from "../../transport/clock.ts";

/** Output takes a fifth of the loop at most. */
const restPerWork = 4;
/** A shorter rest is not worth a timer; it is added to the next one. */
const restMsMin = 1;

export class Pace {
  readonly #clock: Clock;
  /** When the rest that is owed is over. */
  #freeAtMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Waits for the turn of the next piece. */
  async turn(): Promise<void> {
    for (;;) {
      const restMs = this.#freeAtMs - this.#clock.nowMs();
      if (restMs < restMsMin) return;
      await new Promise<void>((resolve) => this.#clock.after(restMs, resolve));
    }
  }

  /** Does a piece of work, which is not to wait for anything, and owes a rest for it. */
  work<T>(piece: () => T): T {
    const beganMs = this.#clock.nowMs();
    try {
      return piece();
    } finally {
      const nowMs = this.#clock.nowMs();
      this.#freeAtMs = Math.max(this.#freeAtMs, nowMs) + (nowMs - beganMs) * restPerWork;
    }
  }
}
