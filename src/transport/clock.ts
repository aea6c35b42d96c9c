/**
 * Time, as the rest of Airlock sees it. Everything that waits takes a {@link Clock}, so that tests decide when time
 * passes; nothing else calls `setTimeout` or `performance.now`.
 */

/** A timer that has not fired yet. */
export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Milliseconds since an arbitrary start; never goes back. */
  nowMs(): number;
  /** Runs `action` once, after `delayMs` milliseconds. */
  after(delayMs: number, action: () => void): Timer;
}

/** What `setTimeout` takes: it fires at once where it is asked for more. */
const timeoutMsMax = 0x7fff_ffff;

/** The time of day, for what people read. It may be set back, so nothing is decided by it. */
export type TimeOfDay = () => Date;

export const systemTimeOfDay: TimeOfDay = () => new Date();

/** The machine's monotonic clock. */
export const systemClock: Clock = {
  nowMs: () => performance.now(),
  after(delayMs, action) {
    let handle: ReturnType<typeof setTimeout>;
    const wait = (restMs: number): void => {
      const stageMs = Math.min(restMs, timeoutMsMax);
      handle = setTimeout(() => (restMs > stageMs ? wait(restMs - stageMs) : action()), stageMs);
    };
    wait(delayMs);
    return { cancel: () => clearTimeout(handle) };
  },
};

/** A clock that moves only when told: for tests, and for simulations of load. */
export class ManualClock implements Clock {
  #nowMs = 0;
  #pending: { atMs: number; action: () => void }[] = [];

  nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, action: () => void): Timer {
    const entry = { atMs: this.#nowMs + delayMs, action };
    this.#pending.push(entry);
    return {
      cancel: () => {
        this.#pending = this.#pending.filter((other) => other !== entry);
      },
    };
  }

  /** Moves time on by `deltaMs`, firing what falls due, earliest first. */
  advance(deltaMs: number): void {
    const untilMs = this.#nowMs + deltaMs;
    for (;;) {
      const due = this.#pending.filter((entry) => entry.atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.#pending = this.#pending.filter((entry) => entry !== due);
      this.#nowMs = due.atMs;
      due.action();
    }
    this.#nowMs = untilMs;
  }
}
