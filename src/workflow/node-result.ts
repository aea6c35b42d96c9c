/**
 * What a node's calls answered, read as outputs: ComfyUI's list semantics on the way out.
 *
 * A call answers a sequence of outputs, or a dict with any of `ui`, `result` and `expand`. Over all calls of a node,
 * every output becomes one list: values are appended, outputs that are lists are concatenated. Answers that ComfyUI
 * would misread (a bare string, a bare tensor) are errors that say what to return instead. Node expansion and blocked
 * execution aren't supported.
 */
import { AirlockError } from "../transport/errors.ts";
import type { NodeDefinition } from "./node-definition.ts";
import type { OutputSlots } from "./output-store.ts";

export interface NodeResult {
  /** Absent where no call answered outputs, as output nodes may. */
  readonly outputs?: OutputSlots;
  /** What the front end would show, merged over the calls; absent where no call answered any. */
  readonly ui?: Readonly<Record<string, unknown[]>>;
}

/** Reads and merges the answers of all calls of one node. Throws `node_invalid`. */
export function mergeAnswers(answers: readonly unknown[], definition: NodeDefinition): NodeResult {
  const results: (readonly unknown[])[] = [];
  const uis: ReadonlyMap<unknown, unknown>[] = [];
  for (const answer of answers) {
    const { result, ui } = readAnswer(answer, definition);
    if (result !== undefined) results.push(result);
    if (ui !== undefined) uis.push(ui);
  }
  return {
    ...(results.length > 0 && { outputs: mergeOutputs(results, definition) }),
    ...(uis.length > 0 && { ui: mergeUi(uis) }),
  };
}

interface Answer {
  readonly result?: readonly unknown[];
  readonly ui?: ReadonlyMap<unknown, unknown>;
}

function readAnswer(answer: unknown, definition: NodeDefinition): Answer {
  const fields = asDict(answer);
  if (fields === undefined) {
    const isNothing = (answer === null || answer === undefined) && definition.outputTypes.length === 0;
    return isNothing ? {} : { result: readOutputs(answer, definition) };
  }
  if (isPresent(fields.get("expand"))) {
    throw new AirlockError("node_invalid", "it expands into other nodes, and node expansion isn't supported yet");
  }
  const ui = fields.get("ui");
  const result = fields.get("result");
  const shown = asDict(ui);
  if (isPresent(ui) && shown === undefined) {
    throw new AirlockError("node_invalid", `its "ui" is ${describeKind(ui)}, not a dict`);
  }
  return {
    ...(shown !== undefined && { ui: shown }),
    ...(isPresent(result) && { result: readOutputs(result, definition) }),
  };
}

function readOutputs(value: unknown, { outputTypes }: NodeDefinition): readonly unknown[] {
  const declared = `${outputTypes.length} (${outputTypes.join(", ")})`;
  if (!Array.isArray(value)) {
    throw new AirlockError("node_invalid", `it returned ${describeKind(value)} instead of a tuple of outputs`, {
      hint: "a node with one output returns a tuple of one: return (value,)",
    });
  }
  if (value.length < outputTypes.length) {
    throw new AirlockError("node_invalid", `it returned ${value.length} outputs, but declares ${declared}`);
  }
  return value;
}

function mergeOutputs(results: readonly (readonly unknown[])[], definition: NodeDefinition): OutputSlots {
  return definition.outputTypes.map((type, index) => {
    const values = results.map((result) => result[index]);
    return definition.outputIsList[index] === true
      ? values.flatMap((value) => readList(value, `output ${index} (${type})`))
      : values;
  });
}

function readList(value: unknown, name: string): unknown[] {
  if (typeof value === "object" && value !== null && Symbol.iterator in value && !(value instanceof Map)) {
    return Array.from(value as Iterable<unknown>);
  }
  throw new AirlockError("node_invalid", `${name} is declared as a list, but it returned ${describeKind(value)}`);
}

/** Each key's lists one after the other; the first answer decides which keys there are, as in ComfyUI. */
function mergeUi(uis: readonly ReadonlyMap<unknown, unknown>[]): Record<string, unknown[]> {
  const merged: [string, unknown[]][] = [];
  for (const key of uis[0]?.keys() ?? []) {
    const values = uis.filter((ui) => ui.has(key)).flatMap((ui) => ui.get(key));
    merged.push([String(key), values]);
  }
  return Object.fromEntries(merged);
}

/** A Python dict: a plain object, or a map where not all keys are strings. */
function asDict(value: unknown): ReadonlyMap<unknown, unknown> | undefined {
  if (value instanceof Map) return value;
  if (typeof value !== "object" || value === null) return undefined;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null ? new Map(Object.entries(value)) : undefined;
}

function isPresent(value: unknown): boolean {
  return value !== undefined && value !== null;
}

function describeKind(value: unknown): string {
  if (value === null || value === undefined) return "None";
  if (typeof value === "string") return "a str";
  return typeof value === "object" ? `an object (${value.constructor?.name ?? "dict"})` : `a ${typeof value}`;
}
