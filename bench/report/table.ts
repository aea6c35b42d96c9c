/** A scenario's result for a terminal. Pure. */
import { type Column, formatTable } from "../../src/cli/table.ts";
import { goalText, type Outcome, outcomesOf } from "../goals.ts";
import { noiseProblem } from "../noise.ts";
import type { ScenarioResult } from "../results.ts";
import type { Scenario } from "../scenario.ts";
import { relativeSpread } from "../statistics.ts";
import { type Block, basesOf, blocksOf } from "./blocks.ts";
import { formatBounds, formatEstimate, formatNumber, unitText } from "./format.ts";

/** Beyond this part of it to either side, a number is told to be rough. */
const roughMin = 0.25;

export interface TableOptions {
  /** Columns of the terminal. */
  readonly width: number;
  /** Whether all measurements are shown, and not those alone that tell most. */
  readonly isAll: boolean;
}

/** Blocks of who was measured at the same thing, then goals, then notes. */
export function resultText(scenario: Scenario, result: ScenarioResult, { width, isAll }: TableOptions): string {
  const blocks = blocksOf(scenario, result, isAll);
  const bases = basesOf(scenario, result);
  const hidden = result.measurements.length - blocks.reduce((sum, { rows }) => sum + rows.length, 0);
  const rough = blocks.some(({ rows }) => rows.some(isRough));
  return [
    ...(blocks.length > 0 ? [tableOf(blocks, bases, width)] : []),
    ...(hidden > 0 ? [`… and ${hidden} more figures: --all`] : []),
    ...(rough ? [`~ the bounds are more than ${100 * roughMin} % of the median apart from it`] : []),
    ...remarksOf(scenario, result),
  ].join("\n");
}

/** What there is to say besides numbers: goals, noise, who was absent, and who failed; a line each. */
export function remarksOf(scenario: Scenario, result: ScenarioResult): string[] {
  const problem = noiseProblem(result.noise);
  return [
    ...outcomesOf(scenario, result).map(outcomeText),
    ...(problem === undefined ? [] : [problem]),
    ...result.notes,
    ...result.failures.map((failure) => `FAILED: ${failure}`),
  ];
}

/** With as many of the bases as fit. */
function tableOf(blocks: readonly Block[], bases: readonly string[], width: number): string {
  for (let count = bases.length; ; count--) {
    const text = formatTable(columnsOf(bases.slice(0, count)), rowsOf(blocks, count));
    if (count <= 1 || Math.max(...text.split("\n").map((line) => Bun.stringWidth(line))) <= width) return text;
  }
}

function columnsOf(bases: readonly string[]): Column[] {
  const numbers = (title: string): Column => ({ title, align: "right" });
  return [{ title: "" }, numbers("median"), numbers("95 % bounds"), ...bases.map((base) => numbers(`of ${base}`))];
}

function rowsOf(blocks: readonly Block[], bases: number): string[][] {
  const hasConditions = new Set(blocks.map(({ head }) => head.condition)).size > 1;
  return blocks.flatMap(({ head, rows }) => {
    const what = [head.of, head.statistic, ...(hasConditions ? [head.condition] : [])].join(", ");
    return [
      [`${what} (${unitText(head.unit)})`],
      ...rows.map((row) => [
        `  ${row.contender}`,
        `${isRough(row) ? "~" : ""}${formatNumber(row.value.value)}`,
        formatBounds(row.value),
        ...row.ratios.slice(0, bases).map((each) => (each === undefined ? "" : formatEstimate(each))),
      ]),
    ];
  });
}

function isRough({ value }: Block["rows"][number]): boolean {
  return (relativeSpread(value) ?? 0) > roughMin;
}

export function outcomeText({ goal, reached, verdict }: Outcome): string {
  const sign = { met: "✓", unclear: "≈", missed: "✗", "not measured": "–" }[verdict];
  const said = reached === undefined ? verdict : `${formatEstimate(reached)}, ${verdict}`;
  return `${sign} goal: ${goalText(goal)}: ${said}`;
}
