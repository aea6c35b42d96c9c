/**
 * The end of a stream of text, split into lines as they come.
 *
 * Invariant: it holds at most `charsMax` characters, and one line at most {@link lineCharsMax}, however much is
 * written. No I/O.
 */

/** A longer line is told in pieces. */
const lineCharsMax = 8192;

export class Tail {
  readonly #charsMax: number;
  readonly #onLine: ((line: string) => void) | undefined;
  #kept = "";
  #line = "";

  constructor(charsMax: number, onLine?: (line: string) => void) {
    this.#charsMax = charsMax;
    this.#onLine = onLine;
  }

  write(chunk: string): void {
    this.#kept = (this.#kept + chunk).slice(-this.#charsMax);
    if (this.#onLine === undefined) return;
    // A carriage return ends a line too: that is how a program rewrites its progress.
    const lines = (this.#line + chunk).split(/[\r\n]+/);
    this.#line = lines.pop() ?? "";
    for (const line of lines) this.#tell(line);
    while (this.#line.length > lineCharsMax) {
      this.#tell(this.#line.slice(0, lineCharsMax));
      this.#line = this.#line.slice(lineCharsMax);
    }
  }

  /** Tells the last line if nothing ended it. */
  end(): void {
    this.#tell(this.#line);
    this.#line = "";
  }

  /** The last characters written. */
  text(): string {
    return this.#kept;
  }

  #tell(line: string): void {
    if (line.trim() !== "") this.#onLine?.(line);
  }
}
