/** Node packs that live in the test's own process, and what tests need to put them into a workflow. */
import { AirlockError } from "../../../src/transport/errors.ts";
import { loadWorkflow } from "../../../src/workflow/check.ts";
import type { NodeDefinition, NodeInputs } from "../../../src/workflow/node-definition.ts";
import { indexNodes, type WorkflowPack } from "../../../src/workflow/pack.ts";
import type { Workflow } from "../../../src/workflow/workflow.ts";

export type NodeFunction = (inputs: Record<string, unknown>, signal?: AbortSignal) => unknown;

export interface MemoryNode extends Partial<Omit<NodeDefinition, "name" | "inputs">> {
  readonly inputs?: Partial<NodeInputs>;
  readonly run?: NodeFunction;
}

export function defineNode(name: string, { run: _, inputs, ...rest }: MemoryNode = {}): NodeDefinition {
  const outputTypes = rest.outputTypes ?? [];
  return {
    name,
    displayName: name,
    category: "test",
    inputIsList: false,
    outputNames: outputTypes,
    outputIsList: outputTypes.map(() => false),
    outputNode: false,
    isAsync: false,
    ...rest,
    outputTypes,
    inputs: { required: {}, optional: {}, hidden: {}, ...inputs },
  };
}

export function memoryPack(name: string, nodes: Record<string, MemoryNode>, workersMax = 8): WorkflowPack {
  return {
    name,
    workersMax,
    folder: `/packs/${name}`,
    nodes: new Map(Object.entries(nodes).map(([className, node]) => [className, defineNode(className, node)])),
    async call(className, inputs, { signal }) {
      return nodes[className]?.run?.(inputs, signal) ?? null;
    },
  };
}

/** The workflow of a prompt that is written as a value. */
export function load(prompt: Record<string, unknown>, ...packs: WorkflowPack[]): Workflow {
  return loadWorkflow(JSON.stringify(prompt), indexNodes(packs));
}

/** What `action` throws, as an AirlockError. */
export async function failureOf(action: () => unknown): Promise<AirlockError> {
  try {
    await action();
  } catch (thrown) {
    if (thrown instanceof AirlockError) return thrown;
    throw thrown;
  }
  throw new Error("an AirlockError was expected");
}
