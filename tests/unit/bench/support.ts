/** Results as runs leave them, for tests. */
import { type Measurement, newRun, type Run, type ScenarioResult } from "../../../bench/results.ts";
import type { Scenario } from "../../../bench/scenario.ts";

export function measurement(contender: string, samples: readonly (number | null)[], rest: Partial<Measurement> = {}) {
  return {
    contender,
    condition: "free",
    of: "int",
    statistic: "p50",
    unit: "µs" as const,
    ...rest,
    samples: [...samples],
  };
}

export function result(measurements: readonly Measurement[], rest: Partial<ScenarioResult> = {}): ScenarioResult {
  return {
    ...{
      scenario: "calls",
      rounds: 5,
      tookSeconds: 1,
      measurements: [...measurements],
      series: [],
      notes: [],
      failures: [],
    },
    ...{ noise: { probeMs: [1, 1, 1], stolen: 0 }, ...rest },
  };
}

export function scenario(rest: Partial<Scenario> = {}): Scenario {
  return {
    ...{ name: "calls", group: "per call", describe: "one call after the other", rounds: 5, bases: ["floor"] },
    plan: () => Promise.resolve({ turns: [], notes: [] }),
    ...rest,
  };
}

export function runOf(...results: readonly ScenarioResult[]): Run {
  const run = newRun({
    startedAt: "2026-01-01T00:00:00.000Z",
    seed: 1,
    smoke: false,
    machine: { cores: "2" },
    versions: { Bun: "1" },
  });
  return { ...run, results: [...results] };
}
