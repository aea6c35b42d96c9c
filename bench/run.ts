/** Runs scenarios one after the other, shows how far it is, and says how quiet the machine was meanwhile. */
import { availableParallelism } from "node:os";
import { NoiseWatch } from "./noise.ts";
import { ProgressBar } from "./progress.ts";
import { randomFrom } from "./random.ts";
import type { ScenarioResult } from "./results.ts";
import type { Plan, Scenario, Turn } from "./scenario.ts";
import { takeTurns } from "./turns.ts";

export interface RunOptions {
  readonly seed: number;
  /** Of every scenario; its own number where it is missing. */
  readonly rounds: number | undefined;
  readonly smoke: boolean;
  /** Parts of the names of the contenders that take part; all do where there are none. */
  readonly contenders: readonly string[];
  readonly profiles?: string | undefined;
  onResult(scenario: Scenario, result: ScenarioResult): void;
}

interface Planned {
  readonly scenario: Scenario;
  readonly plan: Plan;
  readonly rounds: number;
}

export async function measureAll(chosen: readonly Scenario[], options: RunOptions): Promise<void> {
  const bar = new ProgressBar(process.stderr, () => performance.now());
  const planned: Planned[] = [];
  for (const scenario of chosen) {
    const planOptions = { ...options, withRivals: !options.smoke || options.contenders.length > 0 };
    const plan = narrowed(await scenario.plan(planOptions), options.contenders);
    const rounds = options.rounds ?? scenario.rounds;
    for (const turn of plan.turns) bar.expect(kindOf(scenario, turn), rounds);
    planned.push({ scenario, plan, rounds });
  }
  const results = new Map<Plan, ScenarioResult>();
  let reported = 0;
  const rest = planned.values();
  const measureRest = async (): Promise<void> => {
    for (const each of rest) {
      results.set(each.plan, await measureOne(each, options, bar));
      bar.clear();
      // In the order in which they were planned, whichever was done first.
      for (const { plan, scenario } of planned.slice(reported)) {
        const result = results.get(plan);
        if (result === undefined) break;
        reported += 1;
        options.onResult(scenario, result);
      }
    }
  };
  // What only has to work needs no machine of its own.
  const atOnce = options.smoke ? availableParallelism() : 1;
  await Promise.all(Array.from({ length: atOnce }, measureRest));
}

async function measureOne({ scenario, plan, rounds }: Planned, options: RunOptions, bar: ProgressBar) {
  const startMs = performance.now();
  const noise = new NoiseWatch();
  const results = await takeTurns(plan.turns, {
    ...{ rounds, random: randomFrom(options.seed) },
    onTurn: (turn) => {
      bar.begin({ kind: kindOf(scenario, turn), title: `${scenario.name}: ${turn.contender}, ${turn.condition}` });
      noise.probe();
    },
    onFailure: (turn) => bar.drop(kindOf(scenario, turn)),
  });
  return {
    ...results,
    ...{ scenario: scenario.name, rounds, notes: [...plan.notes, ...results.notes], noise: noise.result() },
    tookSeconds: Math.round((performance.now() - startMs) / 100) / 10,
  };
}

function kindOf({ name }: Scenario, { contender, condition }: Turn): string {
  return `${name}\n${contender}\n${condition}`;
}

function narrowed({ turns, notes }: Plan, parts: readonly string[]): Plan {
  if (parts.length === 0) return { turns, notes };
  return { turns: turns.filter(({ contender }) => parts.some((part) => contender.includes(part))), notes };
}
