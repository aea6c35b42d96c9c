/**
 * What a worker writes, as lines of its log: text in UTF-8, whatever the bytes were, cut into lines. Pure.
 *
 * A log is for people and their terminals. So bytes that are no UTF-8 read U+FFFD, control characters are spelled out
 * (`\x07`), except tabs and colours, and of a line that carriage returns wrote over and over (a progress bar) its last
 * state is kept, as a terminal shows it.
 *
 * Invariant: no more than {@link lineCharsMax} characters wait for the end of their line.
 */

/** A longer line is cut into pieces. */
const lineCharsMax = 8192;

// Colours are `ESC [ numbers m`; all else that begins with ESC may move the cursor, or drive the terminal that shows it.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it looks for.
const control = /[\0-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[[0-9;:]{0,32}m)/g;

export class LogLines {
  readonly #decoder = new TextDecoder();
  #partial = "";

  /** Whether a line waits for its end. */
  get hasPartial(): boolean {
    return this.#partial !== "";
  }

  /** Takes the next bytes; returns the lines that ended with them. */
  take(chunk: Uint8Array): string[] {
    const lines = (this.#partial + this.#decoder.decode(chunk, { stream: true })).split("\n");
    this.#partial = lines.pop() ?? "";
    const ended = lines.flatMap(asLine);
    if (this.#partial.length > lineCharsMax) ended.push(...this.#cut());
    return ended;
  }

  /** Whole pieces of a line that is too long, or what carriage returns left of it. */
  #cut(): string[] {
    const last = lastState(this.#partial);
    const whole = last.length - (last.length % lineCharsMax);
    // What comes next writes over it, if a carriage return came last.
    this.#partial = last.slice(whole) + (this.#partial.endsWith("\r") ? "\r" : "");
    return whole === 0 ? [] : asLine(last.slice(0, whole));
  }

  /** Ends the line that waits for its end. */
  flush(): string[] {
    const line = this.#partial;
    this.#partial = "";
    return line === "" ? [] : asLine(line);
  }

  /** Ends it, and a character that was cut within. */
  end(): string[] {
    this.#partial += this.#decoder.decode();
    return this.flush();
  }
}

function asLine(text: string): string[] {
  const line = text.includes("\r") ? lastState(text) : text;
  const shown = line.search(control) < 0 ? line : line.replace(control, spelledOut);
  if (shown.length <= lineCharsMax) return [shown];
  return Array.from({ length: Math.ceil(shown.length / lineCharsMax) }, (_, index) =>
    shown.slice(index * lineCharsMax, (index + 1) * lineCharsMax),
  );
}

/** What a terminal shows of text with carriage returns, near enough: what came after the last one that something follows. */
function lastState(text: string): string {
  const end = text.endsWith("\r") ? text.length - 1 : text.length;
  return text.slice(text.lastIndexOf("\r", end - 1) + 1, end);
}

function spelledOut(character: string): string {
  return `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
}
