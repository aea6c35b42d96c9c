/**
 * How one worker is: asked at every heartbeat, and whenever somebody wants to know.
 *
 * Reports and punishes nothing: native code that holds the interpreter's lock for long cannot answer, and may be doing
 * just what it was called for. Invariant: one question at a time is under way.
 */
import type { Clock, Timer } from "../../transport/clock.ts";
import { type Health, healthSchema, validate } from "../../transport/control.ts";

export interface WatchOptions {
  readonly clock: Clock;
  readonly heartbeatMs: number;
  /** Asks the worker for its `health`; rejects where it has ended, or says something else. */
  ask(): Promise<unknown>;
  /** The worker answers no more, or answers again. */
  onSilent(isSilent: boolean): void;
}

export class HealthWatch {
  readonly #options: WatchOptions;
  #timer: Timer | undefined;
  #asking: Promise<Health | undefined> | undefined;
  #askedAtMs = 0;
  #isSilent = false;
  #isOver = false;
  #latest: Health | undefined;
  #answerMs: number | undefined;

  constructor(options: WatchOptions) {
    this.#options = options;
    this.#wait();
  }

  #wait(): void {
    this.#timer = this.#options.clock.after(this.#options.heartbeatMs, () => this.#beat());
  }

  #beat(): void {
    this.#wait();
    if (this.#asking === undefined) void this.look();
    else if (!this.#isSilent) {
      this.#isSilent = true;
      this.#options.onSilent(true);
    }
  }

  /** What the worker said last, and how many milliseconds it took to say it. */
  get latest(): { readonly health: Health; readonly answerMs: number } | undefined {
    if (this.#latest === undefined || this.#answerMs === undefined) return undefined;
    return { health: this.#latest, answerMs: this.#answerMs };
  }

  /** How long it has owed an answer by now. */
  get silentMs(): number {
    return this.#asking === undefined ? 0 : this.#options.clock.nowMs() - this.#askedAtMs;
  }

  /** Asks, or joins who has; settles when the worker has answered. Undefined where it is gone, or makes no sense. */
  look(): Promise<Health | undefined> {
    if (this.#isOver) return Promise.resolve(undefined);
    this.#asking ??= this.#ask();
    return this.#asking;
  }

  async #ask(): Promise<Health | undefined> {
    this.#askedAtMs = this.#options.clock.nowMs();
    try {
      this.#latest = validate(healthSchema, await this.#options.ask(), "health of a worker");
      this.#answerMs = this.#options.clock.nowMs() - this.#askedAtMs;
      return this.#latest;
    } catch {
      // It has ended, which others are told of, or it is not one of ours and never says how it is.
      return undefined;
    } finally {
      this.#asking = undefined;
      if (this.#isSilent && !this.#isOver) this.#options.onSilent(false);
      this.#isSilent = false;
    }
  }

  /** The worker has ended. */
  end(): void {
    this.#isOver = true;
    this.#timer?.cancel();
  }
}
