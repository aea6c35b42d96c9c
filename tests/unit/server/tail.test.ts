import { expect, test } from "bun:test";
import { Tail } from "../../../src/server/tail.ts";

const text = "Resolved 2 packages\r\n\n10%\r20%\rdone\nlast, unended";

// The same text in every size of chunk must come out as the same lines.
test.each([1, 2, 3, 7, 1000])("lines are whole whatever the chunks: %p characters", (size) => {
  const lines: string[] = [];
  const tail = new Tail(1000, (line) => lines.push(line));
  for (let at = 0; at < text.length; at += size) tail.write(text.slice(at, at + size));
  tail.end();
  expect(lines).toEqual(["Resolved 2 packages", "10%", "20%", "done", "last, unended"]);
  expect(tail.text()).toBe(text);
});

test("only the end is kept", () => {
  const tail = new Tail(10);
  for (let written = 0; written < 100; written++) tail.write(`${written},`);
  expect(tail.text()).toBe("97,98,99,".padStart(10, ","));
});

test("a line without end is told in pieces instead of held", () => {
  const lines: string[] = [];
  const tail = new Tail(10, (line) => lines.push(line));
  tail.write("x".repeat(20_000));
  expect(lines.map((line) => line.length)).toEqual([8192, 8192]);
});
