/**
 * What a pack may use: which limits there are, in which unit each counts, and which one holds where several are set. Pure.
 *
 * Enforces nothing; a limit's value is plain, and its source says where a person would change it.
 */

/** Every limit, by the key that a manifest has for it. */
export const limitNames = ["call_timeout", "memory", "processes", "open_files", "cpus"] as const;
export type LimitName = (typeof limitNames)[number];

/** The limits that hold a worker's processes; the other one holds calls. */
export type WorkerLimitName = Exclude<LimitName, "call_timeout">;

/** Milliseconds of a call, bytes, processes, descriptors of one process, CPUs. */
export type LimitValues = { readonly [Name in LimitName]?: number };

export interface Limit {
  readonly value: number;
  /** Where it was set: `limits.memory in /packs/blur/pyproject.toml`. */
  readonly source: string;
}

export type ResourceLimits = { readonly [Name in LimitName]?: Limit };

/** What the server says about limits, whatever packs ask for. */
export interface LimitPolicy {
  /** For packs that do not say. */
  readonly defaults: LimitValues;
  /** What no pack gets more than. */
  readonly max: LimitValues;
}

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;

/** A value of the limit as a person reads it: `8 GiB`, `30 s`, `1.5 CPUs`. */
export function formatLimit(name: LimitName, value: number): string {
  switch (name) {
    case "call_timeout":
      return `${value / 1000} s`;
    case "memory":
      return formatBytes(value);
    case "processes":
      return `${value} ${value === 1 ? "process" : "processes"}`;
    case "open_files":
      return `${value} open files`;
    case "cpus":
      return `${value} ${value === 1 ? "CPU" : "CPUs"}`;
  }
}

/** Bytes with one decimal where they are no whole number of their unit. */
export function formatBytes(bytes: number): string {
  const [unit, size] =
    bytes >= GiB ? ["GiB", GiB] : bytes >= MiB ? ["MiB", MiB] : bytes >= KiB ? ["KiB", KiB] : ["B", 1];
  return `${Math.round((bytes / size) * 10) / 10} ${unit}`;
}

/** Of a pack, what it asks for, the server's default where it doesn't say, and never more than the server's maximum. */
export function resolveLimits(
  asked: ResourceLimits,
  { defaults, max }: LimitPolicy,
): { readonly limits: ResourceLimits; readonly warnings: readonly string[] } {
  const limits: Partial<Record<LimitName, Limit>> = {};
  const warnings: string[] = [];
  for (const name of limitNames) {
    const fallback = defaults[name];
    const wanted =
      asked[name] ?? (fallback === undefined ? undefined : { value: fallback, source: `the server's default ${name}` });
    const most = max[name];
    const isOver = most !== undefined && (wanted === undefined || wanted.value > most);
    const limit = isOver ? { value: most, source: `the server's maximum ${name}` } : wanted;
    if (limit !== undefined) limits[name] = limit;
    if (isOver && asked[name] !== undefined) {
      const [more, less] = [formatLimit(name, asked[name].value), formatLimit(name, most)];
      warnings.push(`${asked[name].source} asks for ${more}; the server allows ${less}, and that holds`);
    }
  }
  return { limits, warnings };
}
