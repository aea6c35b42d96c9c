/** Medians, their bounds, and ratios of rounds. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { randomFrom } from "../../../bench/random.ts";
import {
  areTrue,
  chanceOf,
  estimate,
  logSpread,
  median,
  quantile,
  ratio,
  ratioOfRuns,
  relativeSpread,
} from "../../../bench/statistics.ts";

const numbers = fc.array(fc.double({ min: 0.001, max: 1e9, noNaN: true }), { minLength: 2, maxLength: 20 });

test("quantiles lie between samples where they fall there", () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 2, 3])).toBe(2.5);
  expect(quantile([10, 20, 30, 40, 50], 0.9)).toBe(46);
  expect(median([])).toBeNaN();
});

describe("an estimate", () => {
  test("lies between its bounds, and those between the samples", () => {
    fc.assert(
      fc.property(numbers, (samples) => {
        const { value, low = Number.NaN, high = Number.NaN } = estimate(samples);
        expect(low).toBeLessThanOrEqual(value);
        expect(high).toBeGreaterThanOrEqual(value);
        expect(low).toBeGreaterThanOrEqual(Math.min(...samples));
        expect(high).toBeLessThanOrEqual(Math.max(...samples));
      }),
    );
  });

  test("of the same samples is the same each time", () => {
    const samples = [5, 1, 4, 2, 3];
    expect(estimate(samples)).toEqual(estimate(samples));
  });

  test("of one start has no bounds, and none of none", () => {
    expect(estimate([7, null])).toEqual({ value: 7, low: undefined, high: undefined });
    expect(estimate([null]).value).toBeNaN();
  });

  test("has bounds that hold the true median about as often as they say", () => {
    const random = randomFrom(20);
    let held = 0;
    for (let trial = 0; trial < 200; trial++) {
      const { low = 1, high = 0 } = estimate(Array.from({ length: 15 }, random));
      if (low <= 0.5 && high >= 0.5) held += 1;
    }
    expect(held).toBeGreaterThan(170);
  });
});

describe("a ratio", () => {
  test("takes the rounds in pairs: what drifts in both at once is no noise", () => {
    const base = [10, 20, 40, 80, 160];
    const { value, low, high } = ratio(
      base.map((each) => each * 3),
      base,
    );
    expect([value, low, high]).toEqual([3, 3, 3]);
  });

  test("leaves out rounds in which one was missing", () => {
    expect(ratio([2, null, 4], [1, 1, null]).value).toBe(2);
    expect(ratio([2], [null]).value).toBeNaN();
  });

  test("of two runs has the bounds of both", () => {
    const { value, low = 0, high = 0 } = ratioOfRuns([20, 22, 18, 21, 19], [10, 11, 9, 10, 10]);
    expect(value).toBe(2);
    expect(low).toBeGreaterThan(1.6);
    expect(high).toBeLessThan(2.5);
    expect(ratioOfRuns([1, 2], [null]).value).toBeNaN();
    expect(ratioOfRuns([1], [2])).toEqual({ value: 0.5, low: undefined, high: undefined });
  });
});

describe("the chance of a difference", () => {
  // Student's t that 95 % of draws stay below in size, from printed tables.
  test.each([
    [1, 12.706],
    [2, 4.303],
    [3, 3.182],
    [4, 2.776],
    [5, 2.571],
    [12, 2.179],
    [29, 2.045],
  ])("with %d degrees of freedom is 5 % at t = %d", (degrees, t) => {
    expect(chanceOf([Math.exp(t)], [1], { variance: 0.5, degrees })).toBeCloseTo(0.05, 4);
  });

  test("is 1 where there is none, or nobody can say", () => {
    expect(chanceOf([5, 5], [5, 5], { variance: 0, degrees: 2 })).toBe(1);
    expect(chanceOf([5], [6], logSpread([[5], [6]]))).toBe(1);
    expect(chanceOf([null], [6, 7], logSpread([[null], [6, 7]]))).toBe(1);
  });

  test("rests on how much starts of one group differ, all groups together", () => {
    const { variance, degrees } = logSpread([[1, Math.E], [10, 10 * Math.E, null], [7]]);
    expect([variance, degrees]).toEqual([expect.closeTo(0.5), 2]);
  });

  test("of many: as many are true as may be with few of them false", () => {
    expect(areTrue([0.001, 0.9, 0.03, 0.02], 0.05)).toEqual([true, false, true, true]);
    expect(areTrue([0.04, 0.9, 0.9, 0.9], 0.05)).toEqual([false, false, false, false]);
    expect(areTrue([], 0.05)).toEqual([]);
  });
});

test("the spread is half the bounds' distance, as a part of the number", () => {
  expect(relativeSpread({ value: 10, low: 8, high: 13 })).toBe(0.25);
  expect(relativeSpread({ value: 10, low: undefined, high: undefined })).toBeUndefined();
});
