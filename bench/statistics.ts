/** Medians with their spread, and ratios of them, by bootstrap over the starts. Pure. */
import { randomFrom } from "./random.ts";

/**
 * A number, and the bounds of it that 95 % of resamples lie between. Of one start there are none; of three they are the least
 * and the most, which hold the true median in three cases of four.
 */
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

/** How much starts differ: the variance of a start's logarithm (natural), and the degrees of freedom it is known with. */
export interface Spread {
  readonly variance: number;
  readonly degrees: number;
}

/** The spread within groups of starts, all of them taken together; not a number where no group has two. */
export function logSpread(groups: readonly Samples[]): Spread {
  let [squares, degrees] = [0, 0];
  for (const logs of groups.map(logsOf).filter(({ length }) => length > 1)) {
    const middle = mean(logs);
    for (const each of logs) squares += (each - middle) ** 2;
    degrees += logs.length - 1;
  }
  return { variance: squares / degrees, degrees };
}

/** How likely two groups of starts are so far apart by chance: Student's t test of their logarithms; 1 where nobody can say. */
export function chanceOf(one: Samples, other: Samples, { variance, degrees }: Spread): number {
  const [first, second] = [logsOf(one), logsOf(other)];
  if (first.length === 0 || second.length === 0 || degrees === 0) return 1;
  const distance = Math.abs(mean(first) - mean(second));
  if (distance === 0) return 1;
  return studentTails(distance / Math.sqrt(variance * (1 / first.length + 1 / second.length)), degrees);
}

/**
 * Which of many differences are taken for true, given how likely each is by chance: so many that no more than `falseMax` of
 * them are expected not to be (Benjamini and Hochberg, 1995).
 */
export function areTrue(chances: readonly number[], falseMax: number): boolean[] {
  const sorted = chances.toSorted((a, b) => a - b);
  const limit = sorted.findLast((chance, index) => chance <= ((index + 1) / sorted.length) * falseMax);
  return chances.map((chance) => limit !== undefined && chance <= limit);
}

/** The part of Student's distribution beyond ±t, for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4). */
function studentTails(t: number, degrees: number): number {
  const angle = Math.atan(t / Math.sqrt(degrees));
  const isOdd = degrees % 2 === 1;
  let term = isOdd ? Math.cos(angle) : 1;
  let sum = degrees === 1 ? 0 : term;
  for (let n = isOdd ? 3 : 2; n < degrees; n += 2) {
    term *= (Math.cos(angle) ** 2 * (n - 1)) / n;
    sum += term;
  }
  const within = isOdd ? (2 / Math.PI) * (angle + Math.sin(angle) * sum) : Math.sin(angle) * sum;
  return Math.max(0, 1 - within);
}

function logsOf(samples: Samples): number[] {
  return samples.flatMap((each) => (each === null || each <= 0 ? [] : [Math.log(each)]));
}

function mean(numbers: readonly number[]): number {
  return numbers.reduce((sum, each) => sum + each, 0) / numbers.length;
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
