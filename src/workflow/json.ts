/**
 * Reads JSON as Python's `json` module does, which is what ComfyUI reads and writes workflows with.
 *
 * Three things set it apart from `JSON.parse`: an integer keeps all its digits (a seed may use 64 bits, so one beyond
 * 2^53 becomes a bigint), `NaN` and `Infinity` are numbers (ComfyUI writes them), and an error says where it is.
 * It doesn't know what a workflow looks like.
 */

/** A fault in JSON text, with its place: lines and columns count from 1. */
export class JsonError extends Error {
  override readonly name = "JsonError";
  readonly line: number;
  readonly column: number;

  constructor(message: string, text: string, offset: number) {
    super(message);
    const before = text.slice(0, offset).split("\n");
    this.line = before.length;
    this.column = (before.at(-1)?.length ?? 0) + 1;
  }
}

/** Arrays and objects may nest this deep: it bounds the reader's own stack. */
export const jsonDepthMax = 128;

/** The value that `text` holds. Throws {@link JsonError}. */
export function readJson(text: string): unknown {
  return new JsonReader(text).read();
}

const numberPattern = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const plainTextPattern = /[^"\\\p{Cc}]*/uy;
const unicodeEscapePattern = /[0-9a-fA-F]{4}/y;
const spacePattern = /[ \t\r\n]*/y;

const words: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ["true", true],
  ["false", false],
  ["null", null],
  ["NaN", Number.NaN],
  ["Infinity", Number.POSITIVE_INFINITY],
  ["-Infinity", Number.NEGATIVE_INFINITY],
]);

const escapes: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

class JsonReader {
  readonly #text: string;
  #at = 0;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
    // Editors on Windows put a byte order mark first.
    if (text.startsWith("\uFEFF")) this.#at = 1;
  }

  read(): unknown {
    const value = this.#value();
    this.#skipSpace();
    if (this.#at < this.#text.length) throw this.#error("text after the end of the JSON value");
    return value;
  }

  #value(): unknown {
    this.#skipSpace();
    const first = this.#text[this.#at];
    if (first === "{") return this.#nested(() => this.#object());
    if (first === "[") return this.#nested(() => this.#array());
    if (first === '"') return this.#string();
    for (const [word, value] of words) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return value;
      }
    }
    return this.#number();
  }

  #nested<T>(read: () => T): T {
    if (this.#depth === jsonDepthMax) throw this.#error(`nested deeper than ${jsonDepthMax} levels`);
    this.#depth += 1;
    this.#at += 1;
    const value = read();
    this.#depth -= 1;
    return value;
  }

  #object(): Record<string, unknown> {
    const entries: [string, unknown][] = [];
    this.#skipSpace();
    if (this.#take("}")) return {};
    do {
      this.#skipSpace();
      if (this.#text[this.#at] !== '"') throw this.#error(`a key in quotes was expected${this.#found()}`);
      const key = this.#string();
      this.#skipSpace();
      if (!this.#take(":")) throw this.#error(`":" was expected after the key${this.#found()}`);
      entries.push([key, this.#value()]);
      this.#skipSpace();
    } while (this.#take(","));
    if (!this.#take("}")) throw this.#error(`"," or "}" was expected${this.#found()}`);
    // fromEntries defines own properties, so that a key such as "__proto__" is only a key.
    return Object.fromEntries(entries);
  }

  #array(): unknown[] {
    const items: unknown[] = [];
    this.#skipSpace();
    if (this.#take("]")) return items;
    do {
      items.push(this.#value());
      this.#skipSpace();
    } while (this.#take(","));
    if (!this.#take("]")) throw this.#error(`"," or "]" was expected${this.#found()}`);
    return items;
  }

  #string(): string {
    const startedAt = this.#at;
    this.#at += 1;
    let value = "";
    for (;;) {
      value += this.#match(plainTextPattern)?.[0] ?? "";
      const next = this.#text[this.#at];
      if (next === undefined) {
        this.#at = startedAt;
        throw this.#error("the string never ends");
      }
      this.#at += 1;
      if (next === '"') return value;
      if (next === "\\") value += this.#escape();
      else if (next >= "\u007f") value += next;
      else {
        this.#at -= 1;
        throw this.#error("a control character must be written as an escape");
      }
    }
  }

  #escape(): string {
    const letter = this.#text[this.#at];
    this.#at += 1;
    if (letter === "u") {
      const digits = this.#match(unicodeEscapePattern);
      if (digits === undefined) throw this.#error("four hexadecimal digits were expected");
      return String.fromCharCode(Number.parseInt(digits[0], 16));
    }
    const character = letter === undefined ? undefined : escapes[letter];
    if (character === undefined) {
      this.#at -= 1;
      throw this.#error("unknown escape in a string");
    }
    return character;
  }

  #number(): number | bigint {
    const match = this.#match(numberPattern);
    if (match === undefined) throw this.#error(`a value was expected${this.#found()}`);
    const number = Number(match[0]);
    const isInteger = match[1] === undefined && match[2] === undefined;
    return isInteger && !Number.isSafeInteger(number) ? BigInt(match[0]) : number;
  }

  #match(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#text);
    if (match === null) return undefined;
    this.#at += match[0].length;
    return match;
  }

  #take(character: string): boolean {
    if (this.#text[this.#at] !== character) return false;
    this.#at += 1;
    return true;
  }

  #skipSpace(): void {
    this.#match(spacePattern);
  }

  #found(): string {
    const next = this.#text[this.#at];
    return next === undefined ? ", but the text ends" : `, not ${JSON.stringify(next)}`;
  }

  #error(message: string): JsonError {
    return new JsonError(message, this.#text, this.#at);
  }
}
