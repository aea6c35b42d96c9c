/**
 * Shows how several things go at once: on a terminal a line each that changes in place, elsewhere a line per stage.
 */
import type { Progress } from "../transport/control.ts";

/** Where progress is shown; standard error, or a test's double. */
export interface ProgressOutput {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

export class ProgressDisplay {
  readonly #output: ProgressOutput;
  readonly #lines = new Map<string, Progress>();
  #shown = 0;

  constructor(output: ProgressOutput) {
    this.#output = output;
  }

  /** Takes the news of one pack. */
  update(progress: Progress): void {
    const before = this.#lines.get(progress.pack);
    this.#lines.set(progress.pack, progress);
    if (this.#output.isTTY) this.#redraw();
    else if (before?.stage !== progress.stage) this.#output.write(`${format(progress)}\n`);
  }

  /** Removes what was drawn in place, so that ordinary output can follow. */
  finish(): void {
    if (this.#shown > 0) this.#output.write(`\x1b[${this.#shown}A\x1b[J`);
    this.#shown = 0;
    this.#lines.clear();
  }

  #redraw(): void {
    const width = Math.max(20, (this.#output.columns ?? 80) - 1);
    const lines = [...this.#lines.values()].map((progress) => `${format(progress).slice(0, width)}\x1b[K\n`);
    const up = this.#shown > 0 ? `\x1b[${this.#shown}A` : "";
    this.#output.write(up + lines.join(""));
    this.#shown = lines.length;
  }
}

function format({ pack, stage, message }: Progress): string {
  return `${pack}: ${stage === "ready" ? "environment ready" : message}`;
}
