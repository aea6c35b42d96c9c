/** What a run leaves: every sample of every start, and where it was taken. All else is derived from this. */
import { readFileSync } from "node:fs";
import * as v from "valibot";

export const unitSchema = v.picklist(["µs", "ms", "s", "/s", "MiB", "×"]);
export type Unit = v.InferOutput<typeof unitSchema>;

/** What a contender prints of one start. */
export const figureSchema = v.object({ of: v.string(), statistic: v.string(), unit: unitSchema, value: v.number() });
export type Figure = v.InferOutput<typeof figureSchema>;

/** A number over time: seconds since it began, the number, and what went on. */
export const seriesSchema = v.object({
  of: v.string(),
  unit: unitSchema,
  points: v.array(v.tuple([v.number(), v.number(), v.string()])),
});
export type Series = v.InferOutput<typeof seriesSchema>;

const measurementSchema = v.object({
  contender: v.string(),
  /** Where its processes ran, or whatever else set this start apart from the contender's others. */
  condition: v.string(),
  /** What was done: a payload, a size, a number of callers. */
  of: v.string(),
  /** Which number of it. */
  statistic: v.string(),
  unit: unitSchema,
  /** One per round. */
  samples: v.array(v.nullable(v.number())),
});
export type Measurement = v.InferOutput<typeof measurementSchema>;

const resultSchema = v.object({
  scenario: v.string(),
  rounds: v.number(),
  tookSeconds: v.number(),
  measurements: v.array(measurementSchema),
  series: v.array(v.object({ contender: v.string(), condition: v.string(), ...seriesSchema.entries })),
  /** Who was absent or failed, and why; a sentence each. */
  notes: v.array(v.string()),
  /** Who of this project's own failed: the run is no good then. */
  failures: v.array(v.string()),
  noise: v.object({
    /** Milliseconds that the same piece of work took before each start. */
    probeMs: v.array(v.number()),
    /** Part of the machine's time that others had while it was measured; null where the kernel doesn't tell. */
    stolen: v.nullable(v.number()),
  }),
});
export type ScenarioResult = v.InferOutput<typeof resultSchema>;
export type Noise = ScenarioResult["noise"];

const format = "comfy-airlock bench 1";

const runSchema = v.object({
  format: v.literal(format),
  startedAt: v.string(),
  seed: v.number(),
  smoke: v.boolean(),
  machine: v.record(v.string(), v.string()),
  versions: v.record(v.string(), v.string()),
  results: v.array(resultSchema),
});
export type Run = v.InferOutput<typeof runSchema>;

export function newRun(fields: Omit<Run, "format" | "results">): Run {
  return { format, ...fields, results: [] };
}

/** @throws Error that says what is wrong with the file. */
export function readRun(path: string): Run {
  const parsed = v.safeParse(runSchema, JSON.parse(readFileSync(path, "utf8")));
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  throw new Error(
    `${path} is no result of \`bun run bench --json\`: ${v.getDotPath(issue) ?? "the file"}: ${issue.message}`,
  );
}

/** Whether less of it is better. */
export function isLowerBetter(unit: Unit): boolean {
  return unit !== "/s";
}

/** Whether a contender is Airlock, by whichever way. */
export function isOwn(contender: string): boolean {
  return contender.startsWith("airlock");
}

/** Whether two measurements differ in nothing but who was measured. */
export function isAlike(a: Measurement, b: Measurement): boolean {
  return a.condition === b.condition && a.of === b.of && a.statistic === b.statistic;
}
