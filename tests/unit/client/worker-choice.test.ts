import { expect, test } from "bun:test";
import { WorkerChoice } from "../../../src/client/worker-choice.ts";
import scenarios from "../../vectors/worker-choice.json";

/** One step: a call to be placed, or what happens to a slot. */
interface Step {
  readonly take?: string | null;
  readonly owners?: number[];
  readonly within?: number;
  readonly slot?: number | null;
  readonly begin?: number;
  readonly end?: number;
  readonly died?: boolean;
  readonly worker_ended?: number;
  readonly retire?: number;
  readonly may?: boolean;
  readonly retired?: number;
}

interface Scenario {
  readonly name: string;
  readonly workers: number;
  readonly fresh?: boolean;
  readonly sticky?: string[];
  readonly steps: readonly Step[];
}

function perform(choice: WorkerChoice, step: Step): void {
  if (step.take !== undefined) {
    const slot = choice.take({ node: step.take ?? undefined, owners: step.owners ?? [], within: step.within });
    expect(slot ?? null).toBe(step.slot as number | null);
  } else if (step.begin !== undefined) choice.begin(step.begin);
  else if (step.end !== undefined) choice.end(step.end, step.died ?? false);
  else if (step.worker_ended !== undefined) choice.workerEnded(step.worker_ended);
  else if (step.retire !== undefined) expect(choice.retire(step.retire)).toBe(step.may as boolean);
  else if (step.retired !== undefined) choice.retired(step.retired);
  else throw new Error(`unknown step ${JSON.stringify(step)}`);
}

test.each((scenarios as Scenario[]).map((each) => [each.name, each] as const))("%s", (_, scenario) => {
  const { workers, fresh = false, sticky = [], steps } = scenario;
  const choice = new WorkerChoice({ workers, isFresh: fresh, sticky: new Set(sticky) });
  for (const [index, step] of steps.entries()) {
    try {
      perform(choice, step);
    } catch (cause) {
      throw new Error(`step ${index}: ${JSON.stringify(step)}`, { cause });
    }
  }
});
