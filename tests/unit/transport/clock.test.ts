import { describe, expect, test } from "bun:test";
import { ManualClock, systemClock } from "../../../src/transport/clock.ts";

describe("a manual clock", () => {
  test("fires what falls due, earliest first, at its own time", () => {
    const clock = new ManualClock();
    const fired: [string, number][] = [];
    for (const [name, delayMs] of [
      ["late", 30],
      ["early", 10],
      ["same", 10],
      ["never", 31],
    ] as const) {
      clock.after(delayMs, () => fired.push([name, clock.nowMs()]));
    }
    clock.advance(30);
    expect(fired).toEqual([
      ["early", 10],
      ["same", 10],
      ["late", 30],
    ]);
    expect(clock.nowMs()).toBe(30);
  });

  test("fires what is set while it moves, if it falls due on the way", () => {
    const clock = new ManualClock();
    const fired: number[] = [];
    const again = (): void => {
      fired.push(clock.nowMs());
      clock.after(10, again);
    };
    clock.after(10, again);
    clock.advance(35);
    expect(fired).toEqual([10, 20, 30]);
  });

  test("does not fire what was cancelled, and fires nothing twice", () => {
    const clock = new ManualClock();
    const fired: string[] = [];
    clock.after(5, () => fired.push("once"));
    const second = clock.after(7, () => fired.push("cancelled"));
    clock.after(6, () => second.cancel());
    clock.advance(10);
    clock.advance(10);
    expect(fired).toEqual(["once"]);
  });
});

describe("the system's clock", () => {
  test("waits longer than setTimeout can, rather than not at all", async () => {
    const fired: string[] = [];
    const timers = [2 ** 31, 0xffff_ffff].map((delayMs) => systemClock.after(delayMs, () => fired.push("too early")));
    await new Promise<void>((resolve) => void systemClock.after(30, resolve));
    expect(fired).toEqual([]);
    for (const timer of timers) timer.cancel();
  });

  test("never goes back", () => {
    const first = systemClock.nowMs();
    expect(systemClock.nowMs()).toBeGreaterThanOrEqual(first);
  });
});
