/**
 * Two runs beside each other: what got slower beyond noise, and what faster. Pure.
 *
 * A few starts of one figure may lie close together by chance, and of hundreds of figures some always do. So the noise of a
 * figure is never taken to be less than that of its scenario, and of all differences that look sure no more than one in
 * twenty may be by chance (Benjamini and Hochberg's procedure).
 */
import { formatTable } from "../../src/cli/table.ts";
import { isAlike, isLowerBetter, isOwn, type Measurement, type Run, type ScenarioResult } from "../results.ts";
import type { Scenario } from "../scenario.ts";
import { areTrue, chanceOf, type Estimate, logSpread, ratioOfRuns, type Samples, type Spread } from "../statistics.ts";
import { formatEstimate, unitText } from "./format.ts";

/** A difference below this part of a number is none, however sure it is. */
const differenceMin = 0.05;
/** Of the differences that are told, so many may be by chance. */
const falseMax = 0.05;

export interface Change {
  readonly scenario: string;
  readonly measurement: Measurement;
  /** Later over earlier, of the measurement itself or, where there is a base, of its multiple of that. */
  readonly factor: Estimate;
  readonly base: string | undefined;
  readonly verdict: "slower" | "faster" | "alike";
}

/** A figure that both runs have. */
interface Pair extends Pick<Change, "scenario" | "measurement" | "base"> {
  readonly earlier: Samples;
  readonly later: Samples;
}

/** What both runs have measured of this project's own. */
export function changesBetween(earlier: Run, later: Run, scenarios: readonly Scenario[]): Change[] {
  const pairs = later.results.flatMap((result) => {
    const before = earlier.results.find((each) => each.scenario === result.scenario);
    const scenario = scenarios.find(({ name }) => name === result.scenario);
    if (before === undefined || scenario === undefined) return [];
    const figures = result.measurements
      .filter(({ contender }) => isOwn(contender))
      .flatMap((measurement) => pairOf(scenario, before, result, measurement));
    const usual = logSpread(figures.flatMap((each) => [each.earlier, each.later]));
    return figures.map((pair) => ({ pair, chance: chanceOfPair(pair, usual) }));
  });
  const isSure = areTrue(
    pairs.map(({ chance }) => chance),
    falseMax,
  );
  return pairs.map(({ pair: { earlier, later, ...rest } }, index) => {
    const factor = ratioOfRuns(later, earlier);
    return { ...rest, factor, verdict: isSure[index] ? verdictOf(factor.value, rest.measurement) : "alike" };
  });
}

function pairOf(
  scenario: Scenario,
  before: ScenarioResult,
  after: ScenarioResult,
  measurement: Measurement,
): Pair | readonly never[] {
  const sameIn = (result: ScenarioResult, contender: string): Measurement | undefined =>
    result.measurements.find((each) => each.contender === contender && isAlike(each, measurement));
  const earlier = sameIn(before, measurement.contender);
  if (earlier === undefined) return [];
  // What the machine did to all contenders of one run is taken out by one that is the same in both.
  const base = scenario.bases.find(
    (name) => !isOwn(name) && sameIn(before, name) !== undefined && sameIn(after, name) !== undefined,
  );
  const divide = (result: ScenarioResult, { samples }: Measurement) =>
    divided(samples, base === undefined ? undefined : sameIn(result, base)?.samples);
  return {
    ...{ scenario: scenario.name, measurement, base },
    ...{ earlier: divide(before, earlier), later: divide(after, measurement) },
  };
}

/** How likely both runs differ so much by chance, in a scenario whose starts usually differ as they do. */
function chanceOfPair({ earlier, later }: Pair, usual: Spread): number {
  const own = logSpread([earlier, later]);
  return chanceOf(earlier, later, own.variance > usual.variance ? own : { ...own, variance: usual.variance });
}

/** Each round's sample as a multiple of the base's in that round. */
function divided(samples: Samples, base: Samples | undefined): Samples {
  if (base === undefined) return samples;
  return samples.map((each, round) => {
    const other = base[round] ?? null;
    return each === null || other === null ? null : each / other;
  });
}

function verdictOf(factor: number, { unit }: Measurement): Change["verdict"] {
  if (Math.abs(factor - 1) <= differenceMin) return "alike";
  return factor > 1 === isLowerBetter(unit) ? "slower" : "faster";
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
    `${count("slower")} slower, ${count("faster")} faster, ${count("alike")} alike within noise`,
  ].join("\n");
}
