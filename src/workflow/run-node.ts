/**
 * Runs one node of a workflow whose sources ran: all of its calls, and the merge of what they answer.
 *
 * Calls of a synchronous node follow one another, as in ComfyUI; those of an async node overlap, as many at a time as
 * the caller allows. Answers keep the order of their calls. Which node runs when is decided in `execute.ts`.
 */
import { AirlockError, toAirlockError } from "../transport/errors.ts";
import { type InputLists, planCalls } from "./call-inputs.ts";
import { mergeAnswers, type NodeResult } from "./node-result.ts";
import { labelNode } from "./problem.ts";
import type { WorkflowNode } from "./workflow.ts";

export interface NodeRun extends NodeResult {
  readonly calls: number;
}

export interface RunNodeOptions {
  readonly signal: AbortSignal;
  /** Calls of this node under way at a time, if it is async. */
  readonly asyncCallsMax: number;
}

/** Throws what failed, with its own code, as an error that names node, class and pack and has the original as cause. */
export async function runNode(node: WorkflowNode, lists: InputLists, options: RunNodeOptions): Promise<NodeRun> {
  const { definition, pack } = node;
  try {
    const plans = planCalls(lists, definition.inputIsList);
    const overlapMax = definition.isAsync ? options.asyncCallsMax : 1;
    const answers = await mapInOrder(plans, overlapMax, (inputs) => {
      options.signal.throwIfAborted();
      return pack.call(definition.name, inputs, { signal: options.signal });
    });
    return { ...mergeAnswers(answers, definition), calls: plans.length };
  } catch (thrown) {
    throw nodeError(node, thrown);
  }
}

/** The error of a node, told as the workflow's. */
export function nodeError(node: WorkflowNode, thrown: unknown): AirlockError {
  const cause = toAirlockError(thrown);
  const details = { ...cause.details, pack: cause.details.pack ?? node.pack.name };
  // What a worker says of its pack is said here already.
  const said = cause.message.replace(`pack ${node.pack.name}: `, "");
  const message = `${labelNode(node)} of pack "${node.pack.name}": ${said}`;
  return new AirlockError(cause.code, message, details, { cause: thrown });
}

/** Maps with at most `overlapMax` at a time. After a failure nothing new starts, and all that started has ended. */
async function mapInOrder<T, R>(items: readonly T[], overlapMax: number, map: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const queue = items.entries();
  let hasFailed = false;
  const takeTurns = async (): Promise<void> => {
    for (const [index, item] of queue) {
      if (hasFailed) return;
      try {
        results[index] = await map(item);
      } catch (thrown) {
        hasFailed = true;
        throw thrown;
      }
    }
  };
  const turns = Array.from({ length: Math.min(overlapMax, items.length) }, takeTurns);
  const rejected = (await Promise.allSettled(turns)).find((turn) => turn.status === "rejected");
  if (rejected !== undefined) throw rejected.reason;
  return results;
}
