/**
 * A workflow file in ComfyUI's API format, as its text says it: node id → node, unchecked.
 *
 * It tells the format from others that carry the same ending. Whether the nodes make sense is checked in `workflow.ts`.
 */
import { AirlockError } from "../transport/errors.ts";
import { JsonError, readJson } from "./json.ts";

/** ComfyUI calls it the prompt: node id → `{ class_type, inputs, _meta? }`. */
export type Prompt = Readonly<Record<string, unknown>>;

const exportHint = 'in ComfyUI, save it with "Export (API)", or "Save (API Format)" in older versions';

/** Reads the text of a workflow file. Throws `workflow_invalid` with the place of a fault in the JSON. */
export function parsePrompt(text: string): Prompt {
  const value = readText(text);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new AirlockError("workflow_invalid", "a workflow is a JSON object of nodes, and this is not an object", {
      hint: exportHint,
    });
  }
  const prompt = { ...value };
  if (Array.isArray(Reflect.get(prompt, "nodes")) && Array.isArray(Reflect.get(prompt, "links"))) {
    throw new AirlockError(
      "workflow_invalid",
      "this is the graph editor's format, which leaves out the inputs' names",
      {
        hint: exportHint,
      },
    );
  }
  if (isRequest(Reflect.get(prompt, "prompt"))) {
    throw new AirlockError("workflow_invalid", "this is the body of a request to /prompt, not a workflow", {
      hint: 'save the object that is its "prompt"',
    });
  }
  if (Object.keys(prompt).length === 0) throw new AirlockError("workflow_invalid", "the workflow has no nodes");
  return prompt;
}

function readText(text: string): unknown {
  try {
    return readJson(text);
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    const place = `line ${error.line}, column ${error.column}`;
    throw new AirlockError("workflow_invalid", `not valid JSON at ${place}: ${error.message}`, {}, { cause: error });
  }
}

/** A node may be named "prompt", but then it has a class. */
function isRequest(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Object.hasOwn(value, "class_type");
}
