/**
 * What an environment says about itself: `airlock.json` in its folder.
 *
 * Invariant: the record is the last thing written before an environment gets its name, so a folder without one was
 * never finished.
 */
import { join } from "node:path";
import * as v from "valibot";
import { environmentFormat } from "./fingerprint.ts";

const recordSchema = v.object({
  format: v.literal(environmentFormat),
  key: v.string(),
  /** What was asked of uv, normalised and sorted. */
  requirements: v.array(v.string()),
  python: v.object({ path: v.string(), implementation: v.string(), version: v.string(), platform: v.string() }),
  /** Version of the host's torch that it was made to go with. */
  torch: v.nullable(v.string()),
});

export type EnvironmentRecord = v.InferOutput<typeof recordSchema>;

/** The Python of the environment in `directory`. */
export function pythonOf(directory: string): string {
  return join(directory, "bin/python");
}

export async function writeRecord(directory: string, record: EnvironmentRecord): Promise<void> {
  await Bun.write(recordFile(directory), `${JSON.stringify(record, null, 2)}\n`);
}

/** The record in `directory`; undefined if there is none, or none that this version of Airlock wrote. */
export async function readRecord(directory: string): Promise<EnvironmentRecord | undefined> {
  try {
    const parsed = v.safeParse(recordSchema, await Bun.file(recordFile(directory)).json());
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

function recordFile(directory: string): string {
  return join(directory, "airlock.json");
}
