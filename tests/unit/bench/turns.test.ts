/** Contenders take turns in an order that the seed alone decides. */
import { describe, expect, test } from "bun:test";
import { randomFrom } from "../../../bench/random.ts";
import type { Turn } from "../../../bench/scenario.ts";
import { takeTurns } from "../../../bench/turns.ts";

const names = ["a", "b", "c", "d", "e"];

/** The order in which contenders were started, and what was measured: a start's figure is its number. */
async function measure(seed: number, rounds: number) {
  const order: string[] = [];
  const turns = names.map(
    (contender): Turn => ({
      ...{ contender, condition: "free" },
      start: () =>
        Promise.resolve({ figures: [{ of: "it", statistic: "number", unit: "s", value: order.push(contender) }] }),
    }),
  );
  const results = await takeTurns(turns, { rounds, random: randomFrom(seed) });
  return { order, ...results };
}

describe("takeTurns", () => {
  test("starts every contender once a round, in an order that changes from round to round", async () => {
    const { order } = await measure(1, 4);
    const rounds = [0, 1, 2, 3].map((round) => order.slice(round * names.length, (round + 1) * names.length));
    for (const round of rounds) expect(round.toSorted()).toEqual(names);
    expect(new Set(rounds.map((round) => round.join())).size).toBeGreaterThan(1);
  });

  test("repeats the order with its seed, and has another with another", async () => {
    const { order } = await measure(1, 4);
    expect((await measure(1, 4)).order).toEqual(order);
    expect((await measure(2, 4)).order).not.toEqual(order);
  });

  test("keeps every sample by its round, in the order of the turns", async () => {
    const { order, measurements } = await measure(3, 3);
    expect(measurements.map(({ contender }) => contender)).toEqual(names);
    for (const { contender, samples } of measurements) {
      expect(samples).toEqual(order.flatMap((name, index) => (name === contender ? [index + 1] : [])));
    }
  });

  test.each([true, false])("goes on without one that fails, and tells whose it is (rival: %p)", async (isRival) => {
    let starts = 0;
    const failing: Turn = {
      ...{ contender: "fragile", condition: "free", isRival },
      start: () => {
        starts += 1;
        if (starts === 2) return Promise.reject(new Error("it broke"));
        return Promise.resolve({ figures: [{ of: "it", statistic: "number", unit: "s" as const, value: 7 }] });
      },
    };
    const failed: string[] = [];
    const onFailure = (turn: Turn) => failed.push(turn.contender);
    const { measurements, notes, failures } = await takeTurns([failing], {
      rounds: 3,
      random: randomFrom(1),
      onFailure,
    });
    expect(starts).toBe(2);
    expect(measurements[0]?.samples).toEqual([7, null, null]);
    expect(failed).toEqual(["fragile"]);
    expect(isRival ? failures : notes).toEqual([]);
    expect(isRival ? notes : failures).toEqual(["fragile, free, failed in round 2: Error: it broke"]);
  });

  test("keeps the last line over time", async () => {
    let starts = 0;
    const turn: Turn = {
      ...{ contender: "a", condition: "free" },
      start: () => {
        starts += 1;
        return Promise.resolve({ figures: [], series: [{ of: "memory", unit: "MiB", points: [[0, starts, "idle"]] }] });
      },
    };
    const { series } = await takeTurns([turn], { rounds: 2, random: randomFrom(1) });
    expect(series).toEqual([
      { contender: "a", condition: "free", of: "memory", unit: "MiB", points: [[0, 2, "idle"]] },
    ]);
  });
});
