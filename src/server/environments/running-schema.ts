/**
 * The keys of a manifest that say how a pack's workers live: how many there are, how long, and what its nodes allow. Pure.
 */
import * as v from "valibot";
import type { NodeTraits } from "../../transport/control.ts";
import { describe } from "./manifest-problems.ts";

/** As in the manifest; {@link PackManifest} explains each. */
export interface RunningSettings {
  readonly workers: number;
  readonly freshProcess: boolean;
  readonly privateMemory: boolean;
  readonly idleTimeoutMs?: number;
  readonly nodes: Readonly<Record<string, NodeTraits>>;
}

const workersMax = 64;

export const boolean = v.boolean((issue) => `must be true or false, not ${describe(issue.input)}`);

const count = `must be a whole number from 1 to ${workersMax}`;
const seconds = "must be a number of seconds above 0";

const nodeTraits = v.strictObject({ idempotent: v.optional(boolean), sticky: v.optional(boolean) }, (issue) =>
  issue.expected === "never"
    ? "is not known of a node; the keys are idempotent, sticky"
    : `must be a table of what the node allows, not ${describe(issue.input)}`,
);

export const runningKeys = {
  workers: v.optional(
    v.pipe(
      v.number((issue) => `${count}, not ${describe(issue.input)}`),
      v.integer(count),
      v.minValue(1, count),
      v.maxValue(workersMax, count),
    ),
  ),
  fresh_process: v.optional(boolean),
  private_memory: v.optional(boolean),
  idle_timeout: v.optional(
    v.pipe(
      v.number((issue) => `${seconds}, not ${describe(issue.input)}`),
      v.finite(seconds),
      v.gtValue(0, seconds),
    ),
  ),
  nodes: v.optional(
    v.pipe(
      v.custom<object>(
        (value) => typeof value === "object" && value !== null && !Array.isArray(value),
        (issue) => `must be a table of nodes, not ${describe(issue.input)}`,
      ),
      v.record(v.string(), nodeTraits),
    ),
  ),
};

/**
 * What the keys of a table that was checked ask for.
 *
 * @param asksForSandbox whether it also has a key that asks for a sandbox.
 */
export function runningSettings(
  keys: v.InferOutput<v.LooseObjectSchema<typeof runningKeys, undefined>>,
  asksForSandbox: boolean,
): RunningSettings {
  const { workers, fresh_process, private_memory, idle_timeout, nodes } = keys;
  const traits = Object.entries(nodes ?? {}).map(([name, { idempotent, sticky }]): [string, NodeTraits] => [
    name,
    { idempotent: idempotent ?? false, sticky: sticky ?? false },
  ]);
  return {
    workers: workers ?? 1,
    freshProcess: fresh_process ?? false,
    // Who is to be kept apart from the host isn't shown what the host's other packs are given either.
    privateMemory: private_memory === true || asksForSandbox,
    ...(idle_timeout !== undefined && { idleTimeoutMs: idle_timeout * 1_000 }),
    nodes: Object.fromEntries(traits),
  };
}
