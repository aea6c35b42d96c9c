import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { LogLines } from "../../../src/server/workers/log-lines.ts";

/** All lines of what was written in these chunks. */
function linesOf(...chunks: (string | Uint8Array)[]): string[] {
  const lines = new LogLines();
  return [...chunks.flatMap((chunk) => lines.take(Buffer.from(chunk))), ...lines.end()];
}

describe("what a worker writes", () => {
  test.each<[string, (string | Uint8Array)[], string[]]>([
    ["lines as they are", ["one\ntwo\n", "three\n"], ["one", "two", "three"]],
    ["a line in pieces", ["o", "n", "e\ntw", "o\n"], ["one", "two"]],
    ["a last line without an end", ["one\ntwo"], ["one", "two"]],
    ["empty lines", ["\n\na\n"], ["", "", "a"]],
    ["a character in pieces", [Buffer.from("é").subarray(0, 1), Buffer.from("é\n").subarray(1)], ["é"]],
    ["bytes that are no text", [Uint8Array.of(0x61, 0xff, 0xfe, 0x62, 0x0a)], ["a\ufffd\ufffdb"]],
    ["half a character at the end", [Buffer.from("é").subarray(0, 1)], ["\ufffd"]],
    ["a progress bar, by its last state", ["\r 1%", "\r50%\r", "\r100%\n"], ["100%"]],
    ["a progress bar that returns behind its state", ["1%\r50%\r100%\r\nnext\n"], ["100%", "next"]],
    ["lines as Windows ends them", ["one\r\ntwo\r", "\n"], ["one", "two"]],
    ["colours", ["\x1b[1;31mred\x1b[0m\n"], ["\x1b[1;31mred\x1b[0m"]],
    [
      "what would drive the reader's terminal, spelled out",
      ["\x1b]0;title\x07\x1b[2A\0\n"],
      ["\\x1b]0;title\\x07\\x1b[2A\\x00"],
    ],
  ])("becomes lines: %s", (_, chunks, expected) => {
    expect(linesOf(...chunks)).toEqual(expected);
  });

  test("is cut where a line is longer than any line should be, and nothing of it is lost", () => {
    const lines = linesOf("x".repeat(5000), "y".repeat(20_000), "z\nend\n");
    expect(lines.map((line) => line.length)).toEqual([8192, 8192, 8192, 425, 3]);
    expect(lines.join("")).toBe(`${"x".repeat(5000)}${"y".repeat(20_000)}zend`);
  });

  test("takes back what a carriage return takes back, also where the line was too long by then", () => {
    expect(linesOf(`${"\rwait".repeat(2000)}\r`, "done\n")).toEqual(["done"]);
  });

  test("holds little of a progress bar that never ends its line", () => {
    const lines = new LogLines();
    for (let percent = 0; percent < 100_000; percent++) expect(lines.take(Buffer.from(`\r${percent} %`))).toEqual([]);
    expect(lines.flush()).toEqual(["99999 %"]);
    expect(lines.hasPartial).toBe(false);
  });

  test("gives the same lines, however it is cut into chunks", () => {
    const text = fc.string({ unit: fc.constantFrom("a", "é", "\n", "\r", "\t", "\x1b[0m", "\0") });
    fc.assert(
      fc.property(text, fc.array(fc.nat(9)), (written, cuts) => {
        const bytes = Buffer.from(written);
        const chunks: Uint8Array[] = [];
        let from = 0;
        for (const cut of cuts) {
          chunks.push(bytes.subarray(from, from + cut));
          from += cut;
        }
        expect(linesOf(...chunks, bytes.subarray(from))).toEqual(linesOf(bytes));
      }),
    );
  });

  test("never gives a line that a terminal or a reader of lines would trip over", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there.
        for (const line of linesOf(bytes)) expect(line).not.toMatch(/[\0-\x08\n-\x1a\x7f-\x9f]/);
      }),
    );
  });
});
