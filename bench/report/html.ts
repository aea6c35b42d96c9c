/** A run as one page that opens offline: pictures, goals, tables with every figure, and where it was made. */
import { outcomesOf } from "../goals.ts";
import { noiseProblem, probeSpread } from "../noise.ts";
import type { Run, ScenarioResult } from "../results.ts";
import type { Scenario } from "../scenario.ts";
import { basesOf, blocksOf } from "./blocks.ts";
import { formatBounds, formatEstimate, formatNumber, unitText } from "./format.ts";
import { type Palette, paletteOf, picturesOf } from "./plots.ts";
import { outcomeText } from "./table.ts";

const style = `
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff; }
h1, h2 { line-height: 1.2; } h2 { border-top: 1px solid #ccc; padding-top: 1.5rem; margin-top: 2.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.5rem 0; }
th, td { padding: 0.15rem 0.8rem 0.15rem 0; text-align: right; vertical-align: top; } th:first-child, td:first-child { text-align: left; }
table.facts td { text-align: left; } tr.head td { font-weight: 600; padding-top: 0.6rem; } .met { color: #116329; } .missed { color: #a40e26; } .unclear { color: #7d4e00; }
figure { margin: 1rem 0; overflow-x: auto; } figcaption { font-weight: 600; } figure svg { max-width: 100%; height: auto; }
summary { cursor: pointer; } .note { color: #555; } nav a { margin-right: 1rem; }
`;

/** The page, with everything in it. */
export async function htmlReport(run: Run, scenarios: readonly Scenario[]): Promise<string> {
  const palette = paletteOf(run);
  const sections = await Promise.all(
    run.results.flatMap((result) => {
      const scenario = scenarios.find(({ name }) => name === result.scenario);
      return scenario === undefined ? [] : [sectionOf(scenario, result, palette)];
    }),
  );
  const links = run.results.map(({ scenario }) => `<a href="#${escaped(scenario)}">${escaped(scenario)}</a>`).join("");
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Airlock's benchmarks</title>
<style>${style}</style></head><body>
<h1>Airlock's benchmarks</h1>
<p>${escaped(run.startedAt)}, seed ${run.seed}${run.smoke ? ", <strong>a smoke run: its figures mean nothing</strong>" : ""}.
Contenders start afresh in each round, in random order. Numbers are medians over the rounds with 95 % bounds by bootstrap; ratios are of pairs from the same round.</p>
${factsTable({ ...run.machine, ...run.versions })}
<nav>${links}</nav>
${sections.join("\n")}
</body></html>
`;
}

async function sectionOf(scenario: Scenario, result: ScenarioResult, palette: Palette): Promise<string> {
  const pictures = await picturesOf(scenario, result, palette);
  const outcomes = outcomesOf(scenario, result).map(
    (outcome) => `<li class="${outcome.verdict.replace(" ", "-")}">${escaped(outcomeText(outcome))}</li>`,
  );
  const problem = noiseProblem(result.noise);
  const stolen =
    result.noise.stolen === null
      ? ""
      : `; ${formatNumber(result.noise.stolen * 100)} % of the machine's time was others'`;
  return `<section id="${escaped(scenario.name)}"><h2>${escaped(scenario.name)}</h2>
<p>${escaped(scenario.describe)}. ${result.rounds} rounds in ${formatNumber(result.tookSeconds)} s.
The same piece of work before each start varied by ${formatNumber(probeSpread(result.noise) * 100)} %${stolen}.</p>
${problem === undefined ? "" : `<p class="missed">${escaped(problem)}</p>`}
${outcomes.length > 0 ? `<ul>${outcomes.join("")}</ul>` : ""}
${pictures.map(({ title, svg }) => `<figure><figcaption>${escaped(title)}</figcaption>${svg}</figure>`).join("\n")}
${result.measurements.length > 0 ? `<details><summary>All figures</summary>${figuresTable(scenario, result)}</details>` : ""}
${[...result.notes, ...result.failures].map((note) => `<p class="note">${escaped(note)}</p>`).join("")}
</section>`;
}

function figuresTable(scenario: Scenario, result: ScenarioResult): string {
  const bases = basesOf(scenario, result);
  const rows = blocksOf(scenario, result, true).flatMap(({ head, rows }) => [
    `<tr class="head"><td colspan="${3 + bases.length}">${escaped(`${head.of}, ${head.statistic}, ${head.condition} (${unitText(head.unit)})`)}</td></tr>`,
    ...rows.map(({ contender, value, ratios }) =>
      cells([
        contender,
        formatNumber(value.value),
        formatBounds(value),
        ...ratios.map((each) => (each === undefined ? "" : formatEstimate(each))),
      ]),
    ),
  ]);
  const titles = ["", "median", "95 % bounds", ...bases.map((base) => `of ${base}`)].map(
    (title) => `<th>${escaped(title)}</th>`,
  );
  return `<table><thead><tr>${titles.join("")}</tr></thead><tbody>${rows.join("\n")}</tbody></table>`;
}

function factsTable(facts: Readonly<Record<string, string>>): string {
  return `<table class="facts">${Object.entries(facts)
    .map(([name, value]) => cells([name, value]))
    .join("")}</table>`;
}

function cells(texts: readonly string[]): string {
  return `<tr>${texts.map((text) => `<td>${escaped(text)}</td>`).join("")}</tr>`;
}

function escaped(text: string): string {
  return Bun.escapeHTML(text);
}
