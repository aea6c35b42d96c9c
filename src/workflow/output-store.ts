/**
 * The outputs that some node still needs, each slot as a list of values.
 *
 * A slot is kept from when its node ran until the last link to it was used: outputs are often the largest thing a
 * workflow has, and what isn't referenced can be freed where it lives. Kept nodes' slots stay. It knows no order:
 * reading a slot that isn't there is a fault of the caller.
 */
import { AirlockError } from "../transport/errors.ts";
import type { Link, WorkflowNode } from "./workflow.ts";

/** The outputs of one node: one list of values for each slot. */
export type OutputSlots = readonly (readonly unknown[])[];

interface Slot {
  /** Links that weren't used yet. */
  linksLeft: number;
  values?: readonly unknown[];
}

export class OutputStore {
  readonly #slots = new Map<string, Map<number, Slot>>();
  readonly #kept = new Map<string, OutputSlots>();
  readonly #keptIds: ReadonlySet<string>;

  constructor(nodes: Iterable<WorkflowNode>, keptIds: ReadonlySet<string>) {
    this.#keptIds = keptIds;
    for (const node of nodes) for (const link of linksOf(node)) this.#countLink(link);
  }

  /** The outputs of the kept nodes that ran, by id. */
  get kept(): ReadonlyMap<string, OutputSlots> {
    return this.#kept;
  }

  /** How many slots wait for a link to use them. */
  get waitingCount(): number {
    let count = 0;
    for (const slots of this.#slots.values()) {
      for (const slot of slots.values()) if (slot.values !== undefined) count += 1;
    }
    return count;
  }

  /** Whether any node takes an output of this one. */
  isRead(id: string): boolean {
    return this.#slots.has(id);
  }

  /** Takes what a node put out; slots without a link are dropped at once. */
  put(id: string, outputs: OutputSlots): void {
    if (this.#keptIds.has(id)) this.#kept.set(id, outputs);
    for (const [index, slot] of this.#slots.get(id) ?? []) {
      const values = outputs[index];
      if (values !== undefined) slot.values = values;
    }
  }

  read(link: Link): readonly unknown[] {
    const values = this.#slots.get(link.source)?.get(link.output)?.values;
    if (values === undefined) {
      throw new AirlockError("internal_error", `output ${link.output} of node ${link.source} was read while not there`);
    }
    return values;
  }

  /** Tells that a node ran and won't read its links again. */
  release(node: WorkflowNode): void {
    for (const link of linksOf(node)) {
      const slots = this.#slots.get(link.source);
      const slot = slots?.get(link.output);
      if (slots === undefined || slot === undefined) continue;
      slot.linksLeft -= 1;
      if (slot.linksLeft === 0) slots.delete(link.output);
    }
  }

  #countLink(link: Link): void {
    const slots = this.#slots.get(link.source) ?? new Map<number, Slot>();
    const slot = slots.get(link.output) ?? { linksLeft: 0 };
    slot.linksLeft += 1;
    this.#slots.set(link.source, slots.set(link.output, slot));
  }
}

function linksOf(node: WorkflowNode): Link[] {
  return [...node.inputs.values()].filter((input) => input.kind === "link");
}
