/** Two runs beside each other: what got slower beyond noise, and what faster. Pure. */
import { formatTable } from "../../src/cli/table.ts";
import { isAlike, isLowerBetter, isOwn, type Measurement, type Run, type ScenarioResult } from "../results.ts";
import type { Scenario } from "../scenario.ts";
import { type Estimate, ratioOfRuns, type Samples } from "../statistics.ts";
import { formatEstimate, unitText } from "./format.ts";

/** A difference below this part of a number is none, however sure it is. */
const differenceMin = 0.05;

export interface Change {
  readonly scenario: string;
  readonly measurement: Measurement;
  /** Later over earlier, of the measurement itself or, where there is a base, of its multiple of that. */
  readonly factor: Estimate;
  readonly base: string | undefined;
  readonly verdict: "slower" | "faster" | "alike";
}

/** What both runs have measured of this project's own. */
export function changesBetween(earlier: Run, later: Run, scenarios: readonly Scenario[]): Change[] {
  return later.results.flatMap((result) => {
    const before = earlier.results.find((each) => each.scenario === result.scenario);
    const scenario = scenarios.find(({ name }) => name === result.scenario);
    if (before === undefined || scenario === undefined) return [];
    return result.measurements
      .filter(({ contender }) => isOwn(contender))
      .flatMap((measurement) => changeOf(scenario, before, result, measurement));
  });
}

function changeOf(
  scenario: Scenario,
  before: ScenarioResult,
  after: ScenarioResult,
  measurement: Measurement,
): Change[] {
  const sameIn = (result: ScenarioResult, contender: string): Measurement | undefined =>
    result.measurements.find((each) => each.contender === contender && isAlike(each, measurement));
  const earlier = sameIn(before, measurement.contender);
  if (earlier === undefined) return [];
  // What the machine did to all contenders of one run is taken out by one that is the same in both.
  const base = scenario.bases.find(
    (name) => !isOwn(name) && sameIn(before, name) !== undefined && sameIn(after, name) !== undefined,
  );
  const factor = ratioOfRuns(
    divided(measurement.samples, base === undefined ? undefined : sameIn(after, base)?.samples),
    divided(earlier.samples, base === undefined ? undefined : sameIn(before, base)?.samples),
  );
  return [{ scenario: scenario.name, measurement, factor, base, verdict: verdictOf(factor, measurement) }];
}

/** Each round's sample as a multiple of the base's in that round. */
function divided(samples: Samples, base: Samples | undefined): Samples {
  if (base === undefined) return samples;
  return samples.map((each, round) => {
    const other = base[round] ?? null;
    return each === null || other === null ? null : each / other;
  });
}

function verdictOf({ low, high }: Estimate, { unit }: Measurement): Change["verdict"] {
  if (low === undefined || high === undefined) return "alike";
  const isMore = low > 1 + differenceMin;
  const isLess = high < 1 - differenceMin;
  if (!isMore && !isLess) return "alike";
  return isMore === isLowerBetter(unit) ? "slower" : "faster";
}

export function changesText(changes: readonly Change[]): string {
  const told = changes.filter(({ verdict }) => verdict !== "alike");
  const count = (verdict: Change["verdict"]): number => changes.filter((each) => each.verdict === verdict).length;
  const rows = told.map(({ scenario, measurement, factor, base, verdict }) => [
    verdict,
    scenario,
    [measurement.contender, measurement.condition, measurement.of, measurement.statistic].join(", "),
    formatEstimate(factor),
    base === undefined ? unitText(measurement.unit) : `of ${base}`,
  ]);
  const columns = [
    { title: "" },
    { title: "scenario" },
    { title: "what" },
    { title: "later over earlier" },
    { title: "in" },
  ];
  return [
    ...(rows.length > 0 ? [formatTable(columns, rows)] : []),
    `${count("slower")} slower, ${count("faster")} faster, ${count("alike")} alike within their bounds`,
  ].join("\n");
}
