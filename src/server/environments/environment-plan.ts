/**
 * What an environment will consist of, decided before anything is made. Pure.
 *
 * Invariant: two plans with one key install the same requirements on the same Python.
 */
import { fingerprint, normaliseRequirements } from "./fingerprint.ts";
import type { Interpreter } from "./interpreter.ts";
import { type SharedTorch, withoutTorch } from "./shared-torch.ts";

/**
 * What the worker itself needs in every environment. It is resolved together with the pack's dependencies, so that a
 * pin of the pack's wins, and one that the worker can't run with is refused by uv instead of failing at run time.
 */
const workerRequirements: readonly string[] = ["msgpack>=1.1"];

export interface EnvironmentPlan {
  readonly key: string;
  readonly interpreter: Interpreter;
  /** Normalised, sorted, the worker's included. */
  readonly requirements: readonly string[];
  /** Lines for uv's `--overrides` and `--constraints`; empty unless torch is shared. */
  readonly overrides: readonly string[];
  readonly constraints: readonly string[];
  readonly sharedTorch?: SharedTorch;
}

/** @throws AirlockError `environment_failed` if the pack's dependencies don't go with the torch that it shares */
export function planEnvironment(
  pack: { readonly name: string; readonly dependencies: readonly string[] },
  interpreter: Interpreter,
  sharedTorch?: SharedTorch,
): EnvironmentPlan {
  const { dependencies, overrides, constraints } =
    sharedTorch === undefined
      ? { dependencies: pack.dependencies, overrides: [], constraints: [] }
      : withoutTorch(pack.name, pack.dependencies, sharedTorch);
  const requirements = normaliseRequirements([...dependencies, ...workerRequirements]);
  const { implementation, version, platform } = interpreter;
  const key = fingerprint({
    implementation,
    version,
    platform,
    requirements,
    ...(sharedTorch && { torchVersion: sharedTorch.version }),
  });
  return { key, interpreter, requirements, overrides, constraints, ...(sharedTorch && { sharedTorch }) };
}
