/** Medians with their spread, and ratios of them, by bootstrap over the starts. Pure. */
import { randomFrom } from "./random.ts";

/** A number, and between which bounds it lies with a probability of 95 %. Of one start there are no bounds. */
export interface Estimate {
  readonly value: number;
  readonly low: number | undefined;
  readonly high: number | undefined;
}

/** What one contender reached in each round; null where it was not measured. */
export type Samples = readonly (number | null)[];

const resamples = 1_000;
const tail = 0.025;

export function median(samples: readonly number[]): number {
  return quantile(samples, 0.5);
}

/** The value below which `part` of the samples lie, between two of them where it falls there; NaN of none. */
export function quantile(samples: readonly number[], part: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const place = part * (sorted.length - 1);
  const below = sorted[Math.floor(place)] ?? Number.NaN;
  const above = sorted[Math.ceil(place)] ?? Number.NaN;
  return below + (above - below) * (place - Math.floor(place));
}

/** The median over starts. */
export function estimate(samples: Samples): Estimate {
  const values = samples.filter((each) => each !== null);
  return bounded(values.length, (chosen) => median(chosen.map((index) => values[index] ?? Number.NaN)));
}

/**
 * The median of one as a multiple of another's. Rounds are drawn as pairs: what the machine did to both in one round, it
 * did to both.
 */
export function ratio(of: Samples, base: Samples): Estimate {
  const pairs = of.flatMap((each, round) => {
    const other = base[round] ?? null;
    return each === null || other === null ? [] : [{ each, other }];
  });
  return bounded(pairs.length, (chosen) => {
    const drawn = chosen.flatMap((index) => pairs[index] ?? []);
    return median(drawn.map(({ each }) => each)) / median(drawn.map(({ other }) => other));
  });
}

/** As {@link ratio}, of two that were measured in different runs, and so in no pairs. */
export function ratioOfRuns(of: Samples, base: Samples): Estimate {
  const [ours, theirs] = [of, base].map((samples) => samples.filter((each) => each !== null));
  if (ours === undefined || theirs === undefined || ours.length === 0 || theirs.length === 0)
    return bounded(0, () => Number.NaN);
  const random = randomFrom(1);
  const drawn = (values: readonly number[]) =>
    median(values.map(() => values[Math.floor(random() * values.length)] ?? Number.NaN));
  return {
    value: median(ours) / median(theirs),
    ...(ours.length > 1 && theirs.length > 1
      ? bounds(() => drawn(ours) / drawn(theirs))
      : { low: undefined, high: undefined }),
  };
}

/** @param statistic takes the indexes of the samples that were drawn. */
function bounded(count: number, statistic: (chosen: readonly number[]) => number): Estimate {
  const all = Array.from({ length: count }, (_, index) => index);
  const value = count === 0 ? Number.NaN : statistic(all);
  if (count < 2) return { value, low: undefined, high: undefined };
  // The same samples have the same bounds, whenever they are asked for.
  const random = randomFrom(1);
  return { value, ...bounds(() => statistic(all.map(() => Math.floor(random() * count)))) };
}

function bounds(draw: () => number): { low: number; high: number } {
  const drawn = Array.from({ length: resamples }, draw);
  return { low: quantile(drawn, tail), high: quantile(drawn, 1 - tail) };
}

/** How wide the bounds are, as a part of the number; undefined where there are none. */
export function relativeSpread({ value, low, high }: Estimate): number | undefined {
  return low === undefined || high === undefined ? undefined : (high - low) / 2 / Math.abs(value);
}
