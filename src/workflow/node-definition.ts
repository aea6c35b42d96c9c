/**
 * What a node class declares about itself, and how that is read from a worker's `describe`.
 *
 * A definition is a snapshot: combo lists are as they were when the worker described itself. Whatever a pack declares
 * oddly but ComfyUI runs is accepted here; checking a workflow against it belongs to `workflow.ts`.
 */
import * as v from "valibot";
import { AirlockError } from "../transport/errors.ts";

/** The inputs as `INPUT_TYPES()` returned them: each entry is `[type, options?]`, where type is a name or a combo list. */
export interface NodeInputs {
  readonly required: Readonly<Record<string, readonly unknown[]>>;
  readonly optional: Readonly<Record<string, readonly unknown[]>>;
  readonly hidden: Readonly<Record<string, unknown>>;
}

export interface NodeDefinition {
  /** The key in `NODE_CLASS_MAPPINGS`. */
  readonly name: string;
  readonly displayName: string;
  readonly category: string;
  readonly inputs: NodeInputs;
  readonly inputIsList: boolean;
  readonly outputTypes: readonly string[];
  readonly outputNames: readonly string[];
  /** May be shorter than `outputTypes`; what is absent is no list. */
  readonly outputIsList: readonly boolean[];
  readonly outputNode: boolean;
  readonly isAsync: boolean;
  /**
   * Parameters of the class's own `VALIDATE_INPUTS`, for which ComfyUI skips its range and combo checks; `*` stands for
   * `**kwargs`, and `input_types` turns off the check of link types.
   */
  readonly validatedInputs?: readonly string[];
}

const inputEntrySchema = v.union([
  v.array(v.unknown()),
  // `("IMAGE")` is a string in Python: a missing comma that packs do ship.
  v.pipe(
    v.string(),
    v.transform((type): unknown[] => [type]),
  ),
]);

const inputGroupSchema = v.optional(v.record(v.string(), inputEntrySchema), {});

// Older packs return a combo's list of values as an output type.
const outputTypeSchema = v.union([
  v.string(),
  v.pipe(
    v.array(v.unknown()),
    v.transform(() => "COMBO"),
  ),
]);

/** One node in the answer of a worker's `describe`. */
export const nodeDefinitionSchema = v.pipe(
  v.object({
    name: v.string(),
    display_name: v.string(),
    category: v.string(),
    inputs: v.object({
      required: inputGroupSchema,
      optional: inputGroupSchema,
      hidden: v.optional(v.record(v.string(), v.unknown()), {}),
    }),
    input_is_list: v.boolean(),
    output_types: v.array(outputTypeSchema),
    output_names: v.array(v.string()),
    output_is_list: v.array(v.boolean()),
    output_node: v.boolean(),
    is_async: v.boolean(),
    validated_inputs: v.optional(v.array(v.string()), []),
  }),
  v.transform(
    (wire): NodeDefinition => ({
      name: wire.name,
      displayName: wire.display_name,
      category: wire.category,
      inputs: wire.inputs,
      inputIsList: wire.input_is_list,
      outputTypes: wire.output_types,
      outputNames: wire.output_names,
      outputIsList: wire.output_is_list,
      outputNode: wire.output_node,
      isAsync: wire.is_async,
      validatedInputs: wire.validated_inputs,
    }),
  ),
);

/** Reads one described node of `pack`. Throws `node_invalid` that names the pack and the field. */
export function parseNodeDefinition(value: unknown, pack: string): NodeDefinition {
  const parsed = v.safeParse(nodeDefinitionSchema, value);
  if (parsed.success) return parsed.output;
  const name = v.safeParse(v.object({ name: v.string() }), value);
  const node = name.success ? `node ${name.output.name}` : "a node";
  const faults = parsed.issues.map((issue) => `${v.getDotPath(issue) ?? "definition"}: ${issue.message}`);
  throw new AirlockError("node_invalid", `pack "${pack}" describes ${node} wrongly: ${faults.join("; ")}`, { pack });
}
