/**
 * When a worker that nothing needs may end: looked at once it could have been idle for as long as its manifest says.
 *
 * Invariant: it ends for want of work only where it says itself that it has no call, that nothing of its own is held
 * elsewhere and nothing is held by it, and that no node keeps anything. Where something needs it, it is looked at again.
 */
import type { Clock, Timer } from "../../transport/clock.ts";
import type { Health } from "../../transport/control.ts";

export interface IdleWatchOptions {
  readonly clock: Clock;
  /** Milliseconds without a call that are enough. */
  readonly idleMs: number;
  /** Asks the worker how it is, where it could be idle as far as is known here; undefined where it isn't, or is gone. */
  look(): Promise<Health | undefined>;
  /** Ends it; returns false where it got something to do meanwhile. */
  end(): Promise<boolean>;
}

export class IdleWatch {
  readonly #options: IdleWatchOptions;
  #timer: Timer | undefined;
  #isOver = false;

  constructor(options: IdleWatchOptions) {
    this.#options = options;
    this.#wait(options.idleMs);
  }

  #wait(delayMs: number): void {
    if (!this.#isOver) this.#timer = this.#options.clock.after(delayMs, () => void this.#check());
  }

  async #check(): Promise<void> {
    const { idleMs } = this.#options;
    const health = await this.#options.look();
    if (this.#isOver) return;
    const isIdle = health !== undefined && isUnused(health) && health.idle_ms >= idleMs;
    if (isIdle && (await this.#options.end())) return;
    // Where something holds it, that may let go at any time; where it had a call, the time began again with that.
    const servedMs = health === undefined || isIdle ? 0 : health.idle_ms;
    this.#wait(servedMs < idleMs ? idleMs - servedMs : idleMs);
  }

  /** The worker has ended, or is about to for another reason. */
  stop(): void {
    this.#isOver = true;
    this.#timer?.cancel();
  }
}

/** Whether nothing would be lost with the worker. */
export function isUnused(health: Health): boolean {
  return health.calls === 0 && health.held === 0 && health.holds === 0 && health.stateful === 0;
}
