/**
 * A workflow that can run: what the checks in `check.ts` make and `execute.ts` takes.
 *
 * A {@link Workflow} holds the output nodes and their ancestors only, every link in it leads to an output that exists,
 * and it has no cycle. It is data; nothing here reads or runs.
 */
import type { NodeDefinition } from "./node-definition.ts";
import type { WorkflowPack } from "./pack.ts";
import type { NodeLabel } from "./problem.ts";
import type { Prompt } from "./prompt.ts";

/** Where an input's value comes from. */
export type WorkflowInput =
  | { readonly kind: "link"; readonly source: string; readonly output: number }
  | { readonly kind: "literal"; readonly value: unknown };

export type Link = Extract<WorkflowInput, { kind: "link" }>;

export interface WorkflowNode extends NodeLabel {
  readonly pack: WorkflowPack;
  readonly definition: NodeDefinition;
  /** By name, converted; hidden inputs that ComfyUI fills aren't among them. */
  readonly inputs: ReadonlyMap<string, WorkflowInput>;
}

export interface Workflow {
  /** The file as it was read, which nodes may ask for to store it with what they save. */
  readonly prompt: Prompt;
  /** By id, each after its sources. */
  readonly nodes: ReadonlyMap<string, WorkflowNode>;
}

/** The ids whose outputs a node takes, each once. */
export function sourcesOf(node: WorkflowNode): string[] {
  const sources = new Set<string>();
  for (const input of node.inputs.values()) if (input.kind === "link") sources.add(input.source);
  return [...sources];
}
