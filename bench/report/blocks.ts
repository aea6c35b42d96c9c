/** Measurements in blocks that belong side by side: who was measured at the same thing. Pure. */
import { isAlike, type Measurement, type ScenarioResult } from "../results.ts";
import type { Scenario } from "../scenario.ts";
import { type Estimate, estimate, ratio } from "../statistics.ts";

export interface Block {
  /** Any of the measurements, for what all of them have in common. */
  readonly head: Measurement;
  readonly rows: readonly Row[];
}

export interface Row {
  readonly contender: string;
  readonly value: Estimate;
  /** As a multiple of each base that was measured; undefined where it was not, and of itself. */
  readonly ratios: readonly (Estimate | undefined)[];
}

/** The bases of a scenario that were measured. */
export function basesOf(scenario: Scenario, result: ScenarioResult): string[] {
  return scenario.bases.filter((base) => result.measurements.some(({ contender }) => contender === base));
}

export function blocksOf(scenario: Scenario, result: ScenarioResult, isAll: boolean): Block[] {
  const shown = result.measurements.filter((each) => isAll || (scenario.isShown?.(each) ?? true));
  const bases = basesOf(scenario, result);
  const groups: Measurement[][] = [];
  for (const measurement of shown) {
    const group = groups.find(([first]) => first !== undefined && isAlike(first, measurement));
    if (group === undefined) groups.push([measurement]);
    else group.push(measurement);
  }
  return groups.flatMap((group) => {
    const [head] = group;
    return head === undefined ? [] : [{ head, rows: group.map((each) => rowOf(each, group, bases)) }];
  });
}

function rowOf(measurement: Measurement, group: readonly Measurement[], bases: readonly string[]): Row {
  const { contender, samples } = measurement;
  const ratioTo = (base: string): Estimate | undefined => {
    const other = group.find((each) => each.contender === base);
    return other === undefined || other === measurement ? undefined : ratio(samples, other.samples);
  };
  return { contender, value: estimate(samples), ratios: bases.map(ratioTo) };
}
