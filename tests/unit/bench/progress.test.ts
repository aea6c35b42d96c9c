/** The bar of a run, with the time that is left. */
import { expect, test } from "bun:test";
import { duration, ProgressBar } from "../../../bench/progress.ts";

function newBar(isTTY: boolean) {
  const written: string[] = [];
  let nowMs = 0;
  const output = { isTTY, columns: 80, write: (text: string) => written.push(text) };
  const pass = (ms: number) => {
    nowMs += ms;
  };
  return { bar: new ProgressBar(output, () => nowMs), written, pass };
}

test("what is left is reckoned from what each kind took, and from all others where a kind is new", () => {
  const { bar, pass } = newBar(true);
  bar.expect("slow", 2);
  bar.expect("fast", 3);
  expect(bar.msLeft()).toBeUndefined();
  bar.begin({ kind: "slow", title: "slow" });
  pass(1000);
  bar.begin({ kind: "fast", title: "fast" });
  // One slow one is left, and three of which nothing is known yet.
  expect(bar.msLeft()).toBe(4000);
  pass(10);
  bar.begin({ kind: "fast", title: "fast" });
  expect(bar.msLeft()).toBe(1020);
});

test("what failed comes no more", () => {
  const { bar, pass } = newBar(true);
  bar.expect("a", 3);
  bar.begin({ kind: "a", title: "a" });
  pass(10);
  bar.drop("a");
  expect(bar.msLeft()).toBe(0);
});

test("a terminal shows how far it is, and is left clean; anything else shows nothing", () => {
  const { bar, written, pass } = newBar(true);
  bar.expect("a", 4);
  bar.begin({ kind: "a", title: "calls: airlock" });
  pass(90_000);
  bar.begin({ kind: "a", title: "calls: airlock" });
  expect(written.at(-1)).toBe("\r█████░░░░░░░░░░░░░░░ 1 of 4, 5 min left · calls: airlock\x1b[K");
  bar.clear();
  expect(written.at(-1)).toBe("\r\x1b[K");
  const piped = newBar(false);
  piped.bar.expect("a", 1);
  piped.bar.begin({ kind: "a", title: "a" });
  piped.bar.clear();
  expect(piped.written).toEqual([]);
});

test("durations are told as people do", () => {
  expect([45_000, 720_000, 3_900_000].map(duration)).toEqual(["45 s", "12 min", "1 h 5 min"]);
});
