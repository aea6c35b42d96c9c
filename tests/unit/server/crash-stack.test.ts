import { expect, test } from "bun:test";
import { crashStack } from "../../../src/server/workers/crash-stack.ts";

const head = "Fatal Python error: Segmentation fault";
const other = 'Thread 0x01 (most recent call first):\n  File "a.py", line 1 in run';
const current = 'Current thread 0x02 (most recent call first):\n  File "b.py", line 2 in crash';
const modules = "Extension modules: numpy (total: 1)";

test("a crash is told by its reason and the thread that crashed, then the others", () => {
  expect(crashStack([head, other, current, modules].join("\n\n"))).toBe([head, current, other].join("\n\n"));
});

test("the thread that crashed is told, however many others there are", () => {
  const text = crashStack([head, ...Array.from({ length: 1000 }, () => other), current].join("\n\n"));
  expect(text).toContain(current);
  expect(text.length).toBeLessThan(17_000);
});

test("what is no report is told as it is", () => {
  expect(crashStack("Fatal Python error: out of words\n")).toBe("Fatal Python error: out of words");
});
