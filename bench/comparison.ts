/** Measurements as a table: median and spread, and each median as a share of its rivals' under the same condition. Pure. */
import type { Report } from "./scenario.ts";
import type { Measurement } from "./turns.ts";

export interface ComparisonOptions {
  /** What the numbers are, as the title of the first column. */
  readonly title: string;
  readonly conditionTitle: string;
  readonly figureTitle: string;
  readonly digits: number;
  /** Contenders that the others are divided by; those that were not measured get no column. */
  readonly bases: readonly string[];
}

export function comparisonTable(
  measurements: readonly Measurement[],
  options: ComparisonOptions,
): NonNullable<Report["table"]> {
  const { title, conditionTitle, figureTitle, digits } = options;
  const bases = options.bases.filter((base) => measurements.some((each) => each.contender === base));
  const share = (measured: Measurement, base: string): string => {
    const other = measurements.find((each) => each.contender === base && isAlike(each, measured));
    return other === undefined ? "" : (measured.over.median / other.over.median).toFixed(2);
  };
  return {
    columns: [
      { title },
      { title: conditionTitle },
      { title: figureTitle },
      ...["median", "min", "max", ...bases.map((base) => `of ${base}`)].map(numbers),
    ],
    rows: measurements.map((each) => [
      each.contender,
      each.condition,
      each.figure,
      ...[each.over.median, each.over.min, each.over.max].map((value) => value.toFixed(digits)),
      ...bases.map((base) => share(each, base)),
    ]),
  };
}

function isAlike(a: Measurement, b: Measurement): boolean {
  return a.condition === b.condition && a.figure === b.figure;
}

export function numbers(title: string) {
  return { title, align: "right" as const };
}
