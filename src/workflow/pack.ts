/**
 * What a workflow needs of a node pack, and the index from class names to packs.
 *
 * Workflows name a class only, so each class name must belong to one pack. How a pack runs its nodes is not known here.
 */
import { AirlockError } from "../transport/errors.ts";
import type { NodeDefinition } from "./node-definition.ts";

export interface WorkflowPack {
  readonly name: string;
  readonly folder: string;
  /** How many of its synchronous nodes run at a time. */
  readonly workersMax: number;
  /** By class name. */
  readonly nodes: ReadonlyMap<string, NodeDefinition>;
  /**
   * Calls a node's function once and answers what it returned. It must settle soon after the signal aborts: a workflow
   * ends only when none of its calls is under way.
   */
  call(node: string, inputs: Record<string, unknown>, options: { signal?: AbortSignal }): Promise<unknown>;
}

/** Class name → the pack that offers it. */
export type NodeIndex = ReadonlyMap<string, WorkflowPack>;

/** Throws `workflow_invalid` with every class name that more than one pack offers. */
export function indexNodes(packs: Iterable<WorkflowPack>): NodeIndex {
  const index = new Map<string, WorkflowPack>();
  const clashes = new Map<WorkflowPack, Map<WorkflowPack, string[]>>();
  for (const pack of packs) {
    for (const name of pack.nodes.keys()) {
      const owner = index.get(name);
      if (owner === undefined) index.set(name, pack);
      else {
        const ofOwner = clashes.get(owner) ?? new Map<WorkflowPack, string[]>();
        clashes.set(owner, ofOwner.set(pack, [...(ofOwner.get(pack) ?? []), name]));
      }
    }
  }
  if (clashes.size > 0) throw clashError(clashes);
  return index;
}

function clashError(clashes: ReadonlyMap<WorkflowPack, ReadonlyMap<WorkflowPack, readonly string[]>>): AirlockError {
  const sentences: string[] = [];
  for (const [owner, others] of clashes) {
    for (const [other, names] of others) {
      sentences.push(`packs ${label(owner)} and ${label(other)} both offer ${names.join(", ")}`);
    }
  }
  return new AirlockError("workflow_invalid", sentences.join("; "), {
    hint: "a workflow names a class and no pack: leave one of the packs out",
  });
}

function label(pack: WorkflowPack): string {
  return `"${pack.name}" (${pack.folder})`;
}
