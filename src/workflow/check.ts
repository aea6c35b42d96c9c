/**
 * Checks a workflow against the packs that will run it, and makes a {@link Workflow} of it.
 *
 * All problems are found before anything is said, and one suffices to run nothing; ComfyUI runs those outputs that have
 * none. As in ComfyUI, nodes that no output needs are checked for their class only, and inputs that a class doesn't
 * declare are tolerated: links among them reach the node, values don't. `lazy` and `rawLink` inputs are plain inputs
 * here. A class's own `VALIDATE_INPUTS` isn't called.
 */
import * as v from "valibot";
import { walkGraph } from "./graph.ts";
import { checkLiteral, type InputSpec, readInputSpec } from "./literal.ts";
import { nearNames } from "./near-names.ts";
import type { NodeDefinition } from "./node-definition.ts";
import type { NodeIndex, WorkflowPack } from "./pack.ts";
import { labelNode, type NodeLabel, type Problem, workflowError } from "./problem.ts";
import { type Prompt, parsePrompt } from "./prompt.ts";
import { describeType, typesFit } from "./socket-type.ts";
import type { Link, Workflow, WorkflowInput, WorkflowNode } from "./workflow.ts";

export type WorkflowCheck =
  | { readonly ok: true; readonly workflow: Workflow }
  | { readonly ok: false; readonly problems: readonly Problem[] };

/** Reads and checks the text of a workflow file. Throws `workflow_invalid` with all problems. */
export function loadWorkflow(text: string, index: NodeIndex): Workflow {
  const checked = checkPrompt(parsePrompt(text), index);
  if (!checked.ok) throw workflowError(checked.problems);
  return checked.workflow;
}

/** Checks a workflow as a value: the workflow, or every problem in it. */
export function checkPrompt(prompt: Prompt, index: NodeIndex): WorkflowCheck {
  return new Checker(prompt, index).check();
}

/** A node whose shape is right and whose class may be known. */
interface Draft extends NodeLabel {
  readonly inputs: Readonly<Record<string, unknown>>;
  readonly known?: { readonly pack: WorkflowPack; readonly definition: NodeDefinition };
}

const nodeSchema = v.object({
  class_type: v.string("must be the name of a node class"),
  inputs: v.optional(v.record(v.string(), v.unknown()), {}),
  _meta: v.fallback(v.optional(v.object({ title: v.optional(v.string()) }), {}), {}),
});

const linkSchema = v.strictTuple([v.string(), v.number()]);

class Checker {
  readonly #prompt: Prompt;
  readonly #index: NodeIndex;
  readonly #drafts = new Map<string, Draft>();
  readonly #problems: Problem[] = [];

  constructor(prompt: Prompt, index: NodeIndex) {
    this.#prompt = prompt;
    this.#index = index;
  }

  check(): WorkflowCheck {
    this.#readDrafts();
    const { order, cycles } = walkGraph(this.#roots(), (id) => this.#draftSources(id));
    const reached = new Set(order);
    const checked = new Map<string, WorkflowNode>();
    for (const draft of this.#drafts.values()) {
      if (!reached.has(draft.id) || draft.known === undefined) continue;
      const { known, ...rest } = draft;
      checked.set(draft.id, { ...rest, ...known, inputs: this.#checkInputs(draft, known.definition) });
    }
    for (const cycle of cycles) this.#reportCycle(cycle);
    if (this.#problems.length > 0) return { ok: false, problems: this.#problems };
    const nodes = new Map<string, WorkflowNode>();
    for (const id of order) {
      const node = checked.get(id);
      if (node !== undefined) nodes.set(id, node);
    }
    return { ok: true, workflow: { prompt: this.#prompt, nodes } };
  }

  #readDrafts(): void {
    for (const [id, value] of Object.entries(this.#prompt)) {
      const parsed = v.safeParse(nodeSchema, value);
      if (!parsed.success) {
        const faults = parsed.issues.map((issue) => `${v.getDotPath(issue) ?? "it"}: ${issue.message}`);
        this.#problems.push({ message: `node ${id} is not a node: ${faults.join("; ")}` });
        continue;
      }
      const { class_type: classType, inputs, _meta: meta } = parsed.output;
      const pack = this.#index.get(classType);
      const definition = pack?.nodes.get(classType);
      const draft = { id, classType, title: meta.title ?? definition?.displayName ?? classType, inputs };
      if (pack === undefined || definition === undefined) {
        this.#drafts.set(id, draft);
        this.#reportUnknownClass(draft);
      } else this.#drafts.set(id, { ...draft, known: { pack, definition } });
    }
  }

  /** The output nodes; every node where there are none, so that all problems are found. */
  #roots(): string[] {
    const drafts = [...this.#drafts.values()];
    const outputs = drafts.filter((draft) => draft.known?.definition.outputNode);
    if (outputs.length > 0) return outputs.map((draft) => draft.id);
    // A node that couldn't be read may have been the output.
    if (this.#problems.length === 0) {
      this.#problems.push({
        message: "no node of the workflow is an output node, so there is nothing to run",
        hint: "add a SaveImage or PreviewImage",
      });
    }
    return drafts.map((draft) => draft.id);
  }

  #draftSources(id: string): string[] {
    const sources: string[] = [];
    for (const value of Object.values(this.#drafts.get(id)?.inputs ?? {})) {
      const link = v.safeParse(linkSchema, value);
      if (link.success && this.#drafts.has(link.output[0])) sources.push(link.output[0]);
    }
    return sources;
  }

  #checkInputs(draft: Draft, definition: NodeDefinition): Map<string, WorkflowInput> {
    const declared = { ...definition.inputs.optional, ...definition.inputs.required };
    const inputs = new Map<string, WorkflowInput>();
    for (const [name, entry] of Object.entries(definition.inputs.required)) {
      if (!Object.hasOwn(draft.inputs, name)) this.#reportMissing(draft, name, readInputSpec(entry));
    }
    for (const [name, value] of Object.entries(draft.inputs)) {
      const entry = Object.hasOwn(declared, name) ? declared[name] : undefined;
      const spec = entry === undefined ? undefined : readInputSpec(entry);
      const input = this.#checkInput(draft, definition, name, value, spec);
      if (input !== undefined) inputs.set(name, input);
    }
    return inputs;
  }

  #checkInput(
    draft: Draft,
    definition: NodeDefinition,
    name: string,
    value: unknown,
    spec: InputSpec | undefined,
  ): WorkflowInput | undefined {
    const validated = definition.validatedInputs ?? [];
    const link = v.safeParse(linkSchema, value);
    if (link.success) {
      const [source, output] = link.output;
      const accepts = validated.includes("input_types") ? undefined : spec;
      return this.#checkLink(draft, name, { kind: "link", source, output }, accepts);
    }
    if (spec === undefined) {
      // A hidden input may be given as a value; what the class doesn't declare at all is dropped.
      return Object.hasOwn(definition.inputs.hidden, name) ? { kind: "literal", value } : undefined;
    }
    const selfChecked = validated.includes(name) || validated.includes("*");
    const checked = checkLiteral(value, spec, { selfChecked });
    if (checked.ok) return { kind: "literal", value: checked.value };
    const { ok: _, ...fault } = checked;
    this.#report(draft, { input: name, ...fault });
    return undefined;
  }

  #checkLink(draft: Draft, name: string, link: Link, spec: InputSpec | undefined): WorkflowInput | undefined {
    const source = this.#drafts.get(link.source);
    if (source === undefined) {
      if (!Object.hasOwn(this.#prompt, link.source)) {
        const message = `it is linked to node ${link.source}, which isn't in the workflow`;
        this.#report(draft, { input: name, message });
      }
      return undefined;
    }
    // An unknown class was reported where it is used.
    if (source.known === undefined) return undefined;
    const outputs = source.known.definition.outputTypes;
    const type = outputs[link.output];
    if (type === undefined) {
      const listing = outputs.length === 0 ? "has no outputs" : `has ${outputs.length} (${outputs.join(", ")})`;
      const message = `it is linked to output ${link.output}, counted from 0, of ${labelNode(source)}, which ${listing}`;
      this.#report(draft, { input: name, message });
      return undefined;
    }
    if (spec !== undefined && !typesFit(type, spec.type)) {
      const message = `it takes ${describeType(spec.type)}, but output ${link.output} of ${labelNode(source)} is ${type}`;
      this.#report(draft, { input: name, message });
      return undefined;
    }
    return link;
  }

  #reportUnknownClass(draft: Draft): void {
    const near = nearNames(draft.classType, this.#index.keys());
    const guesses = near.map((name) => `${name} (pack "${this.#index.get(name)?.name}")`);
    const packs = [...new Set([...this.#index.values()].map((pack) => `"${pack.name}"`))];
    const opened = packs.length === 0 ? "no pack is open" : `the packs are ${packs.join(", ")}`;
    const hint = guesses.length === 0 ? "add the pack that has it" : `did you mean ${guesses.join(" or ")}?`;
    this.#report(draft, { message: `no pack has this node class; ${opened}`, hint, isClassMissing: true });
  }

  #reportMissing(draft: Draft, input: string, spec: InputSpec): void {
    const fallback = spec.options["default"];
    const isShown = typeof fallback === "string" || typeof fallback === "number" || typeof fallback === "boolean";
    const hint = isShown ? { hint: `the widget's default is ${JSON.stringify(fallback)}` } : {};
    const message = `this required input (${describeType(spec.type)}) is missing`;
    this.#report(draft, { input, message, ...hint });
  }

  #reportCycle(cycle: readonly string[]): void {
    const path = cycle.map((id) => {
      const draft = this.#drafts.get(id);
      return draft === undefined ? id : `${id} (${draft.classType})`;
    });
    this.#problems.push({
      message: `the nodes ${path.join(" → ")} feed each other in a circle`,
      hint: "remove a link",
    });
  }

  #report({ id, title, classType }: NodeLabel, problem: Omit<Problem, "node">): void {
    this.#problems.push({ node: { id, title, classType }, ...problem });
  }
}
