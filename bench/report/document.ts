/** A run as a page in Markdown: what says most, then a table of each thing that was measured, with its goals. Pure. */
import type { Run, ScenarioResult } from "../results.ts";
import type { Scenario } from "../scenario.ts";
import { type Block, blocksOf } from "./blocks.ts";
import { formatCell, unitText } from "./format.ts";
import { headlineTable } from "./headline-table.ts";
import { remarksOf } from "./table.ts";

export function runDocument(run: Run, scenarios: readonly Scenario[]): string {
  const parts = scenarios.flatMap((scenario) => {
    const result = run.results.find((each) => each.scenario === scenario.name);
    return result === undefined ? [] : [scenarioText(scenario, result)];
  });
  return [`# Measured\n\n${introduction(run)}`, headlineTable(run), ...parts].join("\n\n").concat("\n");
}

function introduction({ startedAt, seed, machine, versions }: Run): string {
  const { rivals, ...others } = versions;
  const named = Object.entries(others).map(([name, version]) => `${name} ${version}`);
  return [
    `Made by \`npm run bench -- --from RUN.json --markdown FILE\` of a run of ${startedAt.slice(0, 10)}, seed ${seed}; not to be edited.`,
    "[bench/README.md](../bench/README.md) says how figures are made, and what each scenario is.\n",
    `- Machine: ${Object.values(machine).slice(0, 4).join(" · ")}`,
    `- Versions: ${named.join(" · ")}`,
    ...(rivals === undefined ? [] : [`- Rivals: ${rivals}`]),
    "\nMedians over fresh starts, and in brackets their bounds by bootstrap. Goals: ✓ met, ≈ met by the median and not by its bounds, ✗ missed.",
  ].join("\n");
}

function scenarioText(scenario: Scenario, result: ScenarioResult): string {
  const remarks = remarksOf(scenario, result);
  return [
    `## ${scenario.name}\n\n${scenario.describe}: \`npm run bench -- ${scenario.name}\`, ${result.rounds} starts of each.`,
    ...tables(blocksOf(scenario, result, false)),
    ...(remarks.length === 0 ? [] : [remarks.map((each) => `- ${each}`).join("\n")]),
  ].join("\n\n");
}

/** One for each number and condition: a row for each contender, a column for each thing that was done. */
function tables(blocks: readonly Block[]): string[] {
  const titles = [...new Set(blocks.map(titleOf))];
  return titles.map((title) => {
    const columns = blocks.filter((block) => titleOf(block) === title);
    const contenders = [...new Set(columns.flatMap(({ rows }) => rows.map(({ contender }) => contender)))];
    const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
    return [
      line([title, ...columns.map(({ head }) => head.of)]),
      line(["---", ...columns.map(() => "---:")]),
      ...contenders.map((contender) => line([contender, ...columns.map((column) => cellOf(column, contender))])),
    ].join("\n");
  });
}

function titleOf({ head: { statistic, condition, unit } }: Block): string {
  return `${statistic}, ${unitText(unit)}${condition === "free" ? "" : `, ${condition}`}`;
}

function cellOf({ rows }: Block, contender: string): string {
  const value = rows.find((row) => row.contender === contender)?.value;
  return value === undefined ? "–" : formatCell(value);
}
