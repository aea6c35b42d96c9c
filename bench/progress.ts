/** A bar with the time that is left. On a terminal it is drawn in place; elsewhere nothing is. */

/** Where it is drawn: standard error, or a test's double. */
export interface BarOutput {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** Something that takes time; what has the same kind takes about as long. */
export interface Step {
  readonly kind: string;
  /** For people. */
  readonly title: string;
}

export class ProgressBar {
  readonly #output: BarOutput;
  readonly #nowMs: () => number;
  /** How many of each kind are still to come. */
  readonly #left = new Map<string, number>();
  readonly #took = new Map<string, number[]>();
  #done = 0;
  #current: { readonly kind: string; readonly startMs: number } | undefined;

  constructor(output: BarOutput, nowMs: () => number) {
    this.#output = output;
    this.#nowMs = nowMs;
  }

  /** So many of a kind are to come. */
  expect(kind: string, times: number): void {
    this.#left.set(kind, (this.#left.get(kind) ?? 0) + times);
  }

  /** One begins, and with it the one before has ended. */
  begin(step: Step): void {
    this.#endCurrent();
    this.#current = { kind: step.kind, startMs: this.#nowMs() };
    this.#draw(step.title);
  }

  /** No more of a kind are to come. */
  drop(kind: string): void {
    this.#endCurrent();
    this.#left.delete(kind);
  }

  /** Removes what was drawn, so that ordinary output can follow. */
  clear(): void {
    this.#endCurrent();
    if (this.#output.isTTY) this.#output.write("\r\x1b[K");
  }

  #endCurrent(): void {
    if (this.#current === undefined) return;
    const { kind, startMs } = this.#current;
    this.#current = undefined;
    this.#took.set(kind, [...(this.#took.get(kind) ?? []), this.#nowMs() - startMs]);
    this.#left.set(kind, Math.max(0, (this.#left.get(kind) ?? 0) - 1));
    this.#done += 1;
  }

  /** Milliseconds until all is done; undefined as long as nothing was. A kind that is not known yet takes as long as others. */
  msLeft(): number | undefined {
    const all = [...this.#took.values()].flat();
    if (all.length === 0) return undefined;
    return [...this.#left].reduce((sum, [kind, times]) => sum + times * mean(this.#took.get(kind) ?? all), 0);
  }

  #draw(title: string): void {
    if (!this.#output.isTTY) return;
    const left = [...this.#left.values()].reduce((sum, each) => sum + each, 0);
    const ms = this.msLeft();
    const cells = 20;
    const full = Math.round((cells * this.#done) / Math.max(1, this.#done + left));
    const bar = "█".repeat(full) + "░".repeat(cells - full);
    const text = `${bar} ${this.#done} of ${this.#done + left}${ms === undefined ? "" : `, ${duration(ms)} left`} · ${title}`;
    this.#output.write(`\r${text.slice(0, (this.#output.columns ?? 80) - 1)}\x1b[K`);
  }
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, each) => sum + each, 0) / values.length;
}

/** 45 s, 12 min, 1 h 5 min. */
export function duration(ms: number): string {
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
