/**
 * Limits on the command line: `--limit memory=8GiB`, as a manifest's table `limits` would have them.
 */
import type { LimitsTable } from "../server/environments/limits-schema.ts";
import { UsageError } from "./command.ts";

/** The table that repeated options amount to. Whether its keys and values make sense, the server checks. */
export function readLimits(option: string, values: readonly string[] = []): LimitsTable {
  const entries = values.map((each) => {
    const [, key = "", value = ""] = /^([^=]+)=(.+)$/.exec(each) ?? [];
    if (key === "") throw new UsageError(`${option} takes KEY=VALUE, such as memory=8GiB, not ${JSON.stringify(each)}`);
    return [key, Number.isNaN(Number(value)) ? value : Number(value)];
  });
  return Object.fromEntries(entries);
}
