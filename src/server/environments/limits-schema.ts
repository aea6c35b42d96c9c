/**
 * The table `limits`, of a manifest or of the server's own: which keys it may have, what each may hold, and what that is in
 * the units that Airlock counts in. Pure.
 */
import * as v from "valibot";
import { AirlockError } from "../../transport/errors.ts";
import {
  formatBytes,
  type LimitName,
  type LimitPolicy,
  type LimitValues,
  limitNames,
} from "../workers/limits/resource-limits.ts";
import { describe, isTable, type ManifestProblem, toProblems, unknownKeys } from "./manifest-problems.ts";

/** Limits as a person writes them. */
export interface LimitsTable {
  /** Seconds. */
  readonly call_timeout?: number;
  /** Bytes, or a text such as `8GiB`. */
  readonly memory?: number | string;
  readonly processes?: number;
  readonly open_files?: number;
  readonly cpus?: number;
}

/** Seconds that a frame's deadline can hold. */
const callSecondsMax = 4_294_967;
/** Less than any worker takes for itself: whoever writes it means another unit. */
const memoryBytesMin = 32 * 1024 * 1024;
/** Less, and a worker has none left for its pack. */
const openFilesMin = 32;
/** The kernel's own bound (PID_MAX_LIMIT). */
const processesMax = 4_194_304;
/** The kernel's smallest share: 1 ms of each 100. */
const cpusMin = 0.01;
const cpusMax = 8192;

const bytesOf: Readonly<Record<string, number>> = {
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** The bytes of `8GiB`, `512 MB`, `1.5 GiB`; undefined where it is no such text. */
function parseBytes(text: string): number | undefined {
  const [, digits = "", unit = ""] = /^\s*(\d+(?:\.\d+)?)\s*([KMGT]?i?B)\s*$/i.exec(text) ?? [];
  const size = bytesOf[unit.toLowerCase()];
  return size === undefined ? undefined : Math.round(Number(digits) * size);
}

const within = (min: number, max: number, what: string) =>
  v.pipe(
    v.number((issue) => `must be ${what}, not ${describe(issue.input)}`),
    v.check((value) => value >= min && value <= max, `must be ${what}`),
  );

const whole = (min: number, max: number, what: string) => {
  const range = `a whole number of ${what}, ${min} to ${max}`;
  return v.pipe(within(min, max, range), v.integer(`must be ${range}`));
};

const memory = v.pipe(
  v.union([v.number(), v.string()], (issue) => `must be bytes or a text such as "8GiB", not ${describe(issue.input)}`),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const written = dataset.value;
    const bytes = typeof written === "number" ? written : parseBytes(written);
    if (bytes === undefined || !Number.isSafeInteger(bytes)) {
      addIssue({ message: `must be bytes or a text such as "8GiB", not ${describe(written)}` });
      return NEVER;
    }
    if (bytes < memoryBytesMin) {
      const least = formatBytes(memoryBytesMin);
      addIssue({
        message: `is ${formatBytes(bytes)}; a worker alone takes more: at least ${least}, or such as "8GiB"`,
      });
      return NEVER;
    }
    return bytes;
  }),
);

const limitsSchema = v.object({
  call_timeout: v.optional(within(0.001, callSecondsMax, `a number of seconds, at most ${callSecondsMax}`)),
  memory: v.optional(memory),
  processes: v.optional(whole(1, processesMax, "processes")),
  open_files: v.optional(whole(openFilesMin, 2 ** 20, "descriptors")),
  cpus: v.optional(within(cpusMin, cpusMax, `a number of CPUs, ${cpusMin} to ${cpusMax}`)),
});

/**
 * Checks a table of limits; undefined asks for none.
 *
 * @param key the table's own, as its author would write it.
 */
export function checkLimits(
  table: unknown,
  key: string,
): { readonly values: LimitValues; readonly problems: readonly ManifestProblem[] } {
  if (table === undefined) return { values: {}, problems: [] };
  if (!isTable(table)) {
    return { values: {}, problems: [{ key, reason: `must be a table of limits, not ${describe(table)}` }] };
  }
  const unknown = unknownKeys(table, limitNames, `${key}.`);
  const parsed = v.safeParse(limitsSchema, table);
  const problems = [...unknown, ...toProblems(parsed.issues, `${key}.`)];
  if (!parsed.success || problems.length > 0) return { values: {}, problems };
  const { call_timeout: seconds, ...rest } = parsed.output;
  const counted = { ...rest, call_timeout: seconds === undefined ? undefined : Math.ceil(seconds * 1000) };
  const given = Object.entries(counted).filter((entry): entry is [LimitName, number] => entry[1] !== undefined);
  return { values: Object.fromEntries(given), problems: [] };
}

/**
 * The server's own limits.
 *
 * @throws AirlockError `bad_request`, naming each key that is wrong.
 */
export function limitPolicy(tables: { readonly defaults?: LimitsTable; readonly max?: LimitsTable }): LimitPolicy {
  const defaults = checkLimits(tables.defaults, "packLimits.defaults");
  const max = checkLimits(tables.max, "packLimits.max");
  const problems = [...defaults.problems, ...max.problems].map(({ key, reason }) => `${key} ${reason}`);
  if (problems.length > 0) throw new AirlockError("bad_request", `the limits for packs: ${problems.join("; ")}`);
  return { defaults: defaults.values, max: max.values };
}
