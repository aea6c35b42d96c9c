/** The page of what was measured last, and the recorded run that it is of. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { runDocument } from "../../../bench/report/document.ts";
import { readRun } from "../../../bench/results.ts";
import { scenarios } from "../../../bench/scenarios/all.ts";
import { measurement, result, runOf, scenario } from "./support.ts";

const root = join(import.meta.dir, "..", "..", "..");

test("docs/measured.md has what the recorded run has", () => {
  const recorded = readRun(join(root, "bench", "recorded", "run.json"));
  // Otherwise: npm run bench -- --from bench/recorded/run.json --markdown docs/measured.md
  expect(readFileSync(join(root, "docs", "measured.md"), "utf8")).toBe(runDocument(recorded, scenarios));
});

test("a page has a table of each number and condition, and the goals and notes of its scenario", () => {
  const measured = result(
    [
      measurement("floor", [10, 10, 10]),
      measurement("airlock", [15, 15, 16]),
      measurement("airlock", [25, 26, 27], { of: "dict" }),
      measurement("airlock", [30, 31, 32], { condition: "one core" }),
    ],
    { rounds: 3, notes: ["skipped: x"] },
  );
  const goal = { contender: "airlock", condition: "free", of: "int", statistic: "p50", atMost: 14 };
  const page = runDocument(runOf(measured), [scenario({ goals: [goal] }), scenario({ name: "not in this run" })]);
  expect(page).toContain("`npm run bench -- calls`, 3 starts of each.");
  expect(page).toContain(
    "| p50, µs | int | dict |\n| --- | ---: | ---: |\n| floor | 10 (10–10) | – |\n| airlock | 15 (15–16) | 26 (25–27) |\n",
  );
  expect(page).toContain("| p50, µs, one core | int |\n| --- | ---: |\n| airlock | 31 (30–32) |\n");
  expect(page).toContain("- ✗ goal: airlock, free, int, p50: at most 14: 15 (15 – 16), missed\n- skipped: x\n");
  expect(page).not.toContain("not in this run");
});
