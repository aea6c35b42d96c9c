import { expect, test } from "bun:test";
import fc from "fast-check";
import { ManualClock } from "../../../src/transport/clock.ts";
import { executeWorkflow } from "../../../src/workflow/execute.ts";
import { load, type MemoryNode, memoryPack } from "./packs.ts";

/** A random node: its links lead to nodes before it, by index. */
interface Plan {
  readonly kind: "Add" | "Split" | "Total";
  /** Which of two packs it is of. */
  readonly pack: 0 | 1;
  readonly isOutput: boolean;
  readonly isAsync: boolean;
  readonly value: number;
  readonly links: readonly { readonly source: number; readonly slot: 0 | 1 }[];
}

const classes = {
  Add: { inputIsList: false, outputIsList: [false, false] },
  Split: { inputIsList: false, outputIsList: [true, false] },
  Total: { inputIsList: true, outputIsList: [false, true] },
} as const;

/** What a node's function returns; `inputs` are single values, or lists for Total. */
function compute(kind: Plan["kind"], inputs: Record<string, unknown>): [unknown, unknown] {
  const numbers = Object.values(inputs).flat().map(Number);
  const sum = numbers.reduce((total, number) => (total * 31 + number) % 9973, 7);
  if (kind === "Add") return [sum, -sum];
  if (kind === "Split") return [sum % 2 === 0 ? [sum, sum + 1] : [sum], sum];
  return [sum, numbers.length > 6 ? [sum] : numbers];
}

/** Each node's outputs, evaluated one after the other in the order of their indices. */
function evaluate(plans: readonly Plan[]): unknown[][][] {
  const outputs: unknown[][][] = [];
  for (const plan of plans) {
    const lists: Record<string, unknown[]> = { value: [plan.value] };
    for (const [at, link] of plan.links.entries()) lists[`in${at}`] = outputs[link.source]?.[link.slot] ?? [];
    const longest = Math.max(...Object.values(lists).map((list) => list.length));
    const answers: [unknown, unknown][] = [];
    if (classes[plan.kind].inputIsList) answers.push(compute(plan.kind, lists));
    else {
      for (let call = 0; call < longest; call += 1) {
        const pick = (list: unknown[]) => (call < list.length ? list[call] : list.at(-1));
        const values = Object.entries(lists).map(([name, list]) => [name, pick(list)]);
        answers.push(compute(plan.kind, Object.fromEntries(values)));
      }
    }
    outputs.push(
      [0, 1].map((slot) => {
        const merged: unknown[] = [];
        for (const answer of answers) {
          if (classes[plan.kind].outputIsList[slot]) merged.push(...(answer[slot] as unknown[]));
          else merged.push(answer[slot]);
        }
        return merged;
      }),
    );
  }
  return outputs;
}

function neededBy(plans: readonly Plan[]): Set<number> {
  const needed = new Set<number>();
  for (let index = plans.length - 1; index >= 0; index -= 1) {
    const isRead = plans.some((plan, at) => needed.has(at) && plan.links.some((link) => link.source === index));
    if (plans[index]?.isOutput || isRead) needed.add(index);
  }
  return needed;
}

function promptOf(plans: readonly Plan[]): Record<string, unknown> {
  const entries = plans.map((plan, index) => {
    const links = plan.links.map((link, at) => [`in${at}`, [`n${link.source}`, link.slot]]);
    const inputs = { value: plan.value, ...Object.fromEntries(links) };
    return [`n${index}`, { class_type: className(plan), inputs }];
  });
  return Object.fromEntries(entries);
}

const className = ({ kind, pack, isOutput, isAsync }: Omit<Plan, "value" | "links">) =>
  `${kind}${pack}${isOutput ? "Output" : ""}${isAsync ? "Async" : ""}`;

/** Every class of a pack, each call of which ends when the scheduler says so. */
function packFor(pack: 0 | 1, workersMax: number, scheduler: fc.Scheduler, onTurn: () => void) {
  const nodes: Record<string, MemoryNode> = {};
  for (const kind of ["Add", "Split", "Total"] as const) {
    for (const isOutput of [false, true]) {
      for (const isAsync of [false, true]) {
        nodes[className({ kind, pack, isOutput, isAsync })] = {
          ...classes[kind],
          inputs: { required: { value: ["INT"] }, optional: { in0: ["*"], in1: ["*"], in2: ["*"] } },
          outputTypes: ["*", "*"],
          outputNode: isOutput,
          isAsync,
          run: async (inputs) => {
            await scheduler.schedule(Promise.resolve());
            onTurn();
            return compute(kind, inputs);
          },
        };
      }
    }
  }
  return memoryPack(`random ${pack}`, nodes, workersMax);
}

const plansArbitrary: fc.Arbitrary<Plan[]> = fc
  .array(
    fc.record({
      kind: fc.constantFrom("Add", "Split", "Total"),
      pack: fc.constantFrom(0, 1),
      isOutput: fc.boolean(),
      isAsync: fc.boolean(),
      value: fc.integer({ min: 0, max: 99 }),
      links: fc.array(fc.record({ source: fc.nat(), slot: fc.constantFrom(0, 1) }), { maxLength: 3 }),
    }),
    { minLength: 1, maxLength: 9 },
  )
  .map((drafts) =>
    drafts.map((draft, index) => ({
      ...draft,
      isOutput: draft.isOutput || index === drafts.length - 1,
      links: index === 0 ? [] : draft.links.map((link) => ({ ...link, source: link.source % index })),
    })),
  );

/** Whether a node that could run beside those that do waits: as many may run as there is room for. */
function isHeldUp(plan: Plan, running: readonly Plan[], workers: readonly number[], concurrency: number): boolean {
  const busy = running.filter(({ pack, isAsync }) => pack === plan.pack && !isAsync).length;
  return running.length < concurrency && (plan.isAsync || busy < (workers[plan.pack] ?? 0));
}

test("any workflow runs each needed node once, after its sources, to what a sequential evaluation gives", async () => {
  await fc.assert(
    fc.asyncProperty(
      plansArbitrary,
      fc.integer({ min: 1, max: 5 }),
      fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 })),
      fc.scheduler(),
      async (plans, concurrency, workers, scheduler) => {
        const started: string[] = [];
        const finished = new Set<string>();
        let runningMax = 0;
        const busyMax = [0, 0];
        const planOf = (id: string) => plans[Number(id.slice(1))] as Plan;
        const running = () => started.filter((id) => !finished.has(id)).map(planOf);
        const needed = [...neededBy(plans)].map((index) => `n${index}`);
        // Whatever is ready and has room has begun before anything else ends.
        const expectNobodyWaits = () => {
          for (const id of needed.filter((each) => !started.includes(each))) {
            const plan = planOf(id);
            const isReady = plan.links.every(({ source }) => finished.has(`n${source}`));
            expect(isReady && isHeldUp(plan, running(), workers, concurrency)).toBe(false);
          }
        };
        const packs = ([0, 1] as const).map((pack) => packFor(pack, workers[pack], scheduler, expectNobodyWaits));
        const workflow = load(promptOf(plans), ...packs);
        const execution = executeWorkflow(workflow, {
          clock: new ManualClock(),
          concurrency,
          onNode: ({ kind, id }) => {
            if (kind === "finished") finished.add(id);
            if (kind !== "started") return;
            for (const link of planOf(id).links) expect(finished.has(`n${link.source}`)).toBe(true);
            started.push(id);
            runningMax = Math.max(runningMax, started.length - finished.size);
            for (const pack of [0, 1]) {
              const busy = running().filter((plan) => plan.pack === pack && !plan.isAsync).length;
              busyMax[pack] = Math.max(busyMax[pack] ?? 0, busy);
            }
          },
        });
        const result = await scheduler.waitFor(execution);

        expect(started.toSorted()).toEqual(needed.toSorted());
        expect(result.nodes.map((report) => report.id).toSorted()).toEqual(needed.toSorted());
        expect(runningMax).toBeLessThanOrEqual(concurrency);
        for (const pack of [0, 1] as const) expect(busyMax[pack]).toBeLessThanOrEqual(workers[pack]);
        const expected = evaluate(plans)
          .map((outputs, index) => [`n${index}`, outputs] as const)
          .filter((_, index) => plans[index]?.isOutput);
        expect(Object.fromEntries(result.outputs)).toEqual(Object.fromEntries(expected));
      },
    ),
    { numRuns: 150 },
  );
});
