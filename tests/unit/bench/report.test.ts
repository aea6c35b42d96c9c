/** What a run says of itself: goals, tables, changes, pictures, and its file. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { outcomesOf } from "../../../bench/goals.ts";
import { noiseProblem } from "../../../bench/noise.ts";
import { randomFrom } from "../../../bench/random.ts";
import { changesBetween, changesText } from "../../../bench/report/compare.ts";
import { headlinePicture } from "../../../bench/report/headline.ts";
import { headlineTable } from "../../../bench/report/headline-table.ts";
import { htmlReport } from "../../../bench/report/html.ts";
import { amountOf } from "../../../bench/report/plots.ts";
import { resultText } from "../../../bench/report/table.ts";
import { readRun } from "../../../bench/results.ts";
import type { Goal } from "../../../bench/scenario.ts";
import { measurement, result, runOf, scenario } from "./support.ts";

const show = { width: 100, isAll: false };

describe("a table", () => {
  test("divides by the bases of the same round and condition, and has a field for each", () => {
    const text = resultText(
      scenario({ bases: ["floor", "absent"] }),
      result([
        measurement("floor", [10, 11, 10]),
        measurement("airlock", [15, 16.5, 15]),
        measurement("airlock", [30, 30, 30], { condition: "one core" }),
      ]),
      show,
    );
    expect(text).toContain("int, p50, free (µs)");
    expect(text).toMatch(/ {2}airlock +15 +15 – 16\.5 +1\.5 \(1\.5 – 1\.5\)/);
    expect(text).toMatch(/ {2}airlock +30 +30 – 30$/m);
    expect(text).not.toContain("absent");
  });

  test("has as many bases as fit", () => {
    const measured = result([
      measurement("floor", [10, 11]),
      measurement("other", [5, 6]),
      measurement("airlock", [15, 16]),
    ]);
    const wide = resultText(scenario({ bases: ["floor", "other"] }), measured, { width: 100, isAll: false });
    const narrow = resultText(scenario({ bases: ["floor", "other"] }), measured, { width: 60, isAll: false });
    expect(wide).toContain("of other");
    expect(narrow).toContain("of floor");
    expect(narrow).not.toContain("of other");
  });

  test("marks what is rough, and says how many figures it leaves out", () => {
    const measured = result([
      measurement("airlock", [1, 2, 3]),
      measurement("airlock", [1, 1, 1], { statistic: "p99" }),
    ]);
    const text = resultText(scenario({ isShown: ({ statistic }) => statistic === "p50" }), measured, show);
    expect(text).toMatch(/airlock +~2 /);
    expect(text).toContain("… and 1 more figures: --all");
    expect(resultText(scenario(), measured, { ...show, isAll: true })).toContain("p99");
  });

  test("says who was absent, who failed, and that it was too noisy", () => {
    const noise = { probeMs: [1, 2, 3, 1, 5], stolen: 0.2 };
    const text = resultText(scenario(), result([], { notes: ["skipped: x"], failures: ["y broke"], noise }), show);
    expect(text).toContain("skipped: x");
    expect(text).toContain("FAILED: y broke");
    expect(text).toContain("too noisy: ");
    expect(text).toContain("other machines had 20 % of this one's time");
    expect(noiseProblem({ probeMs: [1, 1.05, 1.1], stolen: null })).toBeUndefined();
  });
});

describe("a goal", () => {
  const goal: Goal = {
    contender: "airlock",
    condition: "free",
    of: "int",
    statistic: "p50",
    base: { contender: "floor" },
    atMost: 1.5,
  };
  const verdictWith = (samples: readonly number[], wanted: Goal = goal) =>
    outcomesOf(
      scenario({ goals: [wanted] }),
      result([measurement("floor", [10, 10, 10, 10, 10]), measurement("airlock", samples)]),
    )[0];

  test("is met where its bounds keep it, unclear where only the median does, and missed where that doesn't", () => {
    expect(verdictWith([12, 12, 12, 13, 12])?.verdict).toBe("met");
    expect(verdictWith([12, 14, 13, 20, 30])?.verdict).toBe("unclear");
    expect(verdictWith([20, 20, 20, 20, 20])?.verdict).toBe("missed");
  });

  test("may be a number, and a least one", () => {
    const least: Goal = { contender: "airlock", of: "int", statistic: "p50", atLeast: 100 };
    expect(verdictWith([90, 95], least)?.verdict).toBe("missed");
    expect(verdictWith([120, 130], least)).toMatchObject({ verdict: "met", reached: { value: 125 } });
  });

  test("of what was not measured is not said to be met", () => {
    const { verdict, reached } = verdictWith([1], { ...goal, base: { contender: "nobody" } }) ?? expect.unreachable();
    expect([verdict, reached]).toEqual(["not measured", undefined]);
  });
});

describe("two runs", () => {
  const steady = [100, 101, 99, 100, 102];
  const times = (factor: number) => steady.map((each) => each * factor);
  const between = (before: readonly number[], after: readonly number[], rest = {}) =>
    changesBetween(
      runOf(result([measurement("airlock", before, rest), measurement("rival", before, rest)])),
      runOf(result([measurement("airlock", after, rest), measurement("rival", after, rest)])),
      [scenario({ bases: [] })],
    );

  test("differ where chance is unlikely, and by more than a trifle; only this project's own count", () => {
    expect(between(steady, times(1.5)).map(({ verdict }) => verdict)).toEqual(["slower"]);
    expect(between(steady, times(0.5)).map(({ verdict }) => verdict)).toEqual(["faster"]);
    expect(between(steady, times(1.03)).map(({ verdict }) => verdict)).toEqual(["alike"]);
    expect(between([50, 100, 200, 70, 160], [60, 150, 210, 80, 170]).map(({ verdict }) => verdict)).toEqual(["alike"]);
  });

  test("are slower where fewer calls a second were made", () => {
    expect(between(steady, times(0.5), { unit: "/s" }).map(({ verdict }) => verdict)).toEqual(["slower"]);
  });

  test("have what the machine did to all taken out by a base", () => {
    const made = (factor: number) =>
      runOf(result([measurement("airlock", times(factor)), measurement("floor", times(factor))]));
    const changes = changesBetween(made(1), made(3), [scenario()]);
    expect(changes.map(({ verdict, base }) => [verdict, base])).toEqual([["alike", "floor"]]);
  });

  const random = randomFrom(7);
  /** Three starts, each of one of two modes a third apart, with some noise. */
  const starts = () => [0, 0, 0].map(() => 100 * (random() < 0.5 ? 1 : 1.33) * (1 + 0.1 * random()));
  const manyFigures = (factorOf: (index: number) => number) =>
    runOf(
      result(
        Array.from({ length: 300 }, (_, index) =>
          measurement(
            "airlock",
            starts().map((each) => each * factorOf(index)),
            { of: `${index}` },
          ),
        ),
      ),
    );

  test("of the same thing do not differ, though of hundreds of figures some lie apart by chance", () => {
    for (let trial = 0; trial < 10; trial++) {
      const changes = changesBetween(
        manyFigures(() => 1),
        manyFigures(() => 1),
        [scenario()],
      );
      expect(changes.filter(({ verdict }) => verdict !== "alike")).toEqual([]);
    }
  });

  test("have what differs found among hundreds that don't", () => {
    const later = manyFigures((index) => (index < 10 ? 4 : 1));
    const changes = changesBetween(
      manyFigures(() => 1),
      later,
      [scenario()],
    );
    const slower = changes.filter(({ verdict }) => verdict === "slower").map(({ measurement: { of } }) => Number(of));
    expect(slower.slice(0, 10)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(slower.length).toBeLessThan(13);
  });

  test("are told in a table that ends with how many are what", () => {
    const text = changesText(between(steady, times(2)));
    expect(text).toMatch(/slower +calls +airlock, free, int, p50 +2 \(/);
    expect(text).toEndWith("1 slower, 0 faster, 0 alike within noise");
  });
});

describe("a report", () => {
  const run = runOf(
    result([
      measurement("airlock, line", [10, 11], { of: "node's arguments" }),
      measurement("a <b> & c", [100, 110], { of: "node's arguments" }),
    ]),
    result(
      [
        measurement("airlock", [1, 2], { of: "64 KiB", statistic: "both", unit: "ms" }),
        measurement("airlock", [2, 3], { of: "1 MiB", statistic: "both", unit: "ms" }),
      ],
      { scenario: "sizes" },
    ),
    result([], {
      scenario: "footprint",
      series: [
        {
          contender: "airlock",
          condition: "free",
          of: "memory",
          unit: "MiB",
          points: [
            [0, 1, ""],
            [1, 2, ""],
          ],
        },
      ],
    }),
  );
  const known = [
    scenario(),
    scenario({ name: "sizes", plot: "lines" }),
    scenario({ name: "footprint", plot: "series" }),
  ];

  test("is one page with a picture of each scenario, and asks nothing of the network", async () => {
    const page = await htmlReport(run, known);
    expect(page.match(/<svg /g)).toHaveLength(3);
    expect(page).toContain("a &lt;b&gt; &amp; c");
    expect(page.replaceAll(/xmlns(:\w+)?="[^"]*"/g, "")).not.toMatch(/https?:|<script|<link|<img/);
  });

  test("has a headline picture of calls and sizes, and none without them", async () => {
    expect(await headlinePicture(run)).toStartWith("<svg ");
    expect(await headlinePicture(runOf())).toBeUndefined();
  });

  test("has a headline table of those who were measured, at what was measured", () => {
    const call = { of: "node's arguments" };
    const rows = headlineTable(
      runOf(
        result([
          measurement("airlock, line", [1, 2, 3], call),
          measurement("airlock, line", [9, 9, 9], { ...call, condition: "one core" }),
          measurement("Ray actors", [40], call),
        ]),
        result([measurement("Ray actors", [7, 7], { of: "IMAGE" })], { scenario: "shapes" }),
      ),
    ).split("\n");
    expect(rows).toEqual([
      "|  | a call, µs | an IMAGE both ways, ms |",
      "| --- | ---: | ---: |",
      "| **Airlock** | 2 (1–3) | – |",
      "| Ray | 40 | 7 (7–7) |",
    ]);
  });

  test("comes back from its file as it was, and a file that is none is refused by name", () => {
    const folder = mkdtempSync(join(tmpdir(), "airlock-test-"));
    try {
      const path = join(folder, "run.json");
      writeFileSync(path, JSON.stringify(run));
      expect(readRun(path)).toEqual(run);
      writeFileSync(path, JSON.stringify({ ...run, seed: "one" }));
      expect(() => readRun(path)).toThrow(/run\.json is no result of .*seed/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

test("amounts are read from names", () => {
  expect(["64 KiB", "4 GiB", "8 tasks", "1,000 items", "int"].map(amountOf)).toEqual([65536, 4 * 2 ** 30, 8, 1000, 1]);
});
