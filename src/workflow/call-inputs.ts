/**
 * The inputs of a node's calls: ComfyUI's list semantics on the way in.
 *
 * Every input is a list: a link's is what its source put out, a literal's has one value. A node that takes lists is
 * called once with them; any other is called as often as the longest list is long, and shorter lists repeat their last
 * value. What a call answers is read in `node-result.ts`.
 */
import { AirlockError } from "../transport/errors.ts";
import type { OutputStore } from "./output-store.ts";
import type { Prompt } from "./prompt.ts";
import type { WorkflowNode } from "./workflow.ts";

/** Input name → its list of values. */
export type InputLists = ReadonlyMap<string, readonly unknown[]>;

/** The lists of all inputs of a node whose sources ran, with the hidden ones that ComfyUI fills. */
export function gatherInputs(node: WorkflowNode, prompt: Prompt, store: OutputStore): InputLists {
  const lists = new Map<string, readonly unknown[]>();
  for (const [name, input] of node.inputs) {
    lists.set(name, input.kind === "link" ? store.read(input) : [input.value]);
  }
  for (const [name, kind] of Object.entries(node.definition.inputs.hidden)) {
    const value = hiddenValue(kind, node, prompt);
    if (value !== undefined) lists.set(name, [value]);
  }
  return lists;
}

/** The keyword arguments of each call. Throws `workflow_invalid` where a list is empty and another isn't. */
export function planCalls(lists: InputLists, inputIsList: boolean): Record<string, unknown>[] {
  if (inputIsList) return [Object.fromEntries(lists)];
  const callCount = Math.max(0, ...[...lists.values()].map((list) => list.length));
  // As in ComfyUI: without any value, the node is still called once, with nothing.
  if (callCount === 0) return [{}];
  for (const [name, list] of lists) {
    if (list.length === 0) {
      throw new AirlockError("workflow_invalid", `input "${name}" is linked to an output that is an empty list`);
    }
  }
  return Array.from({ length: callCount }, (_, call) => {
    const values = [...lists].map(([name, list]) => [name, list[Math.min(call, list.length - 1)]]);
    return Object.fromEntries(values);
  });
}

/** Undefined where the input is left to the class's own default; a dynamic prompt has no meaning without expansion. */
function hiddenValue(kind: unknown, node: WorkflowNode, prompt: Prompt): unknown {
  switch (kind) {
    case "PROMPT":
      return prompt;
    case "UNIQUE_ID":
      return node.id;
    case "EXTRA_PNGINFO":
      return {};
    case "AUTH_TOKEN_COMFY_ORG":
    case "API_KEY_COMFY_ORG":
      return null;
    default:
      return undefined;
  }
}
