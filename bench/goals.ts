/** Whether a scenario came to what it should. Pure. */
import type { Measurement, ScenarioResult } from "./results.ts";
import type { Goal, Scenario } from "./scenario.ts";
import { type Estimate, estimate, ratio } from "./statistics.ts";

export interface Outcome {
  readonly goal: Goal;
  /** Missing where it, or what it is divided by, was not measured. */
  readonly reached?: Estimate;
  /** `unclear`: the median keeps it, and the bounds do not. */
  readonly verdict: "met" | "unclear" | "missed" | "not measured";
}

export function outcomesOf(scenario: Scenario, result: ScenarioResult): Outcome[] {
  return (scenario.goals ?? []).map((goal) => outcomeOf(goal, result.measurements));
}

function outcomeOf(goal: Goal, measurements: readonly Measurement[]): Outcome {
  const found = (wanted: Pick<Goal, "contender" | "of" | "statistic">): Measurement | undefined =>
    measurements.find(
      (each) =>
        each.contender === wanted.contender &&
        each.of === wanted.of &&
        each.statistic === wanted.statistic &&
        each.condition === (goal.condition ?? each.condition),
    );
  const measured = found(goal);
  const base = goal.base === undefined ? undefined : found({ ...goal, ...goal.base });
  if (measured === undefined || (goal.base !== undefined && base === undefined))
    return { goal, verdict: "not measured" };
  const reached = base === undefined ? estimate(measured.samples) : ratio(measured.samples, base.samples);
  return { goal, reached, verdict: verdictOf(goal, reached) };
}

function verdictOf({ atMost = Number.POSITIVE_INFINITY, atLeast = Number.NEGATIVE_INFINITY }: Goal, reached: Estimate) {
  const keeps = (value: number): boolean => value <= atMost && value >= atLeast;
  if (!keeps(reached.value)) return "missed";
  return [reached.low, reached.high].every((bound) => bound === undefined || keeps(bound)) ? "met" : "unclear";
}

/** As a sentence: `airlock, line, int, p50, free: at most 0.7 of stdout JSON`. */
export function goalText({ contender, condition, of, statistic, base, atMost, atLeast }: Goal): string {
  const bound = atMost === undefined ? `at least ${atLeast}` : `at most ${atMost}`;
  const other = base === undefined ? "" : ` of ${[base.contender, base.of, base.statistic].filter(Boolean).join(", ")}`;
  return `${[contender, condition, of, statistic].filter(Boolean).join(", ")}: ${bound}${other}`;
}
