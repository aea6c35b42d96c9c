/** Contenders take turns in an order that the seed alone decides. */
import { describe, expect, test } from "bun:test";
import { comparisonTable } from "../../../bench/comparison.ts";
import { randomFrom } from "../../../bench/random.ts";
import { type Measurement, type Turn, takeTurns } from "../../../bench/turns.ts";

const names = ["a", "b", "c", "d", "e"];

/** The order in which contenders were started, and what was measured: a start's figure is its number. */
async function measure(seed: number, rounds: number, contender?: string) {
  const order: string[] = [];
  const turns = names.map(
    (name): Turn => ({
      contender: name,
      condition: "free",
      start: () => Promise.resolve({ number: order.push(name) }),
    }),
  );
  const measurements = await takeTurns(turns, { rounds, smoke: false, random: randomFrom(seed), contender });
  return { order, measurements };
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

  test("summarises each contender's starts, in the order of the turns", async () => {
    const { order, measurements } = await measure(3, 3);
    expect(measurements.map((each) => each.contender)).toEqual(names);
    for (const { contender, over } of measurements) {
      const [min = 0, median = 0, max = 0] = order.flatMap((name, index) => (name === contender ? [index + 1] : []));
      expect(over).toEqual({ min, median, max });
    }
  });

  test("leaves out contenders that were not asked for", async () => {
    expect((await measure(1, 2, "c")).order).toEqual(["c", "c"]);
  });
});

test("a comparison divides by a rival under the same condition, and leaves the field empty where there is none", () => {
  const over = (median: number) => ({ median, min: median, max: median });
  const measurements: Measurement[] = [
    { contender: "floor", condition: "free", figure: "int", over: over(10) },
    { contender: "ours", condition: "free", figure: "int", over: over(15) },
    { contender: "ours", condition: "one core", figure: "int", over: over(30) },
  ];
  const { columns, rows } = comparisonTable(measurements, {
    title: "µs",
    conditionTitle: "processes",
    figureTitle: "payload",
    digits: 1,
    bases: ["floor", "absent"],
  });
  expect(columns.map((column) => column.title)).toEqual([
    ...["µs", "processes", "payload", "median", "min", "max", "of floor"],
  ]);
  expect(rows.map((row) => row.at(-1))).toEqual(["1.00", "1.50", ""]);
});
