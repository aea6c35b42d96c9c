/**
 * A pack in a worker as a workflow sees it: node definitions, and calls whose results stay encoded.
 *
 * Outputs go from one node into the next as the bytes that they came as, so every value keeps its exact type, and images
 * are never decoded here. Only as much of a result is opened as ComfyUI's list semantics need.
 */
import type { Pack } from "../client/pack.ts";
import { decodeRaw } from "../transport/codec.ts";
import type { PackDescription } from "../transport/control.ts";
import { rawElements, rawKind } from "../transport/scan.ts";
import type { RawValue } from "../transport/values.ts";
import { type NodeDefinition, parseNodeDefinition } from "../workflow/node-definition.ts";
import type { WorkflowPack } from "../workflow/pack.ts";

/** What a worker says of its own process. */
export interface WorkerIdentity {
  /** Undefined where the pack has several, or one for each call: which of them ran a node is not known. */
  readonly pid: number | undefined;
  /** Version of its Python. */
  readonly python: string;
  /** Version of the numpy that is loaded there, if one is. */
  readonly numpy: string | undefined;
}

export class IsolatedPack implements WorkflowPack {
  readonly name: string;
  readonly folder: string;
  readonly workersMax: number;
  readonly nodes: ReadonlyMap<string, NodeDefinition>;
  /** Nodes that could not be described, with the reason. */
  readonly broken: readonly string[];
  readonly #pack: Pack;
  readonly #described: PackDescription;

  private constructor(
    pack: Pack,
    described: PackDescription,
    nodes: ReadonlyMap<string, NodeDefinition>,
    broken: readonly string[],
  ) {
    this.#pack = pack;
    this.#described = described;
    this.name = pack.name;
    this.folder = pack.folder;
    this.workersMax = pack.workersMax;
    this.nodes = nodes;
    this.broken = broken;
  }

  /** Starts the pack's worker and asks it for its nodes. */
  static async load(pack: Pack, signal: AbortSignal): Promise<IsolatedPack> {
    const described = await pack.describe({ signal });
    const definitions = described.nodes.map((node) => parseNodeDefinition(node, pack.name));
    const broken = described.broken.map(({ name, reason }) => `${name}: ${reason}`);
    return new IsolatedPack(pack, described, new Map(definitions.map((each) => [each.name, each])), broken);
  }

  /** The worker as it is now; it may be another process than before where one died. */
  async identity(signal: AbortSignal): Promise<WorkerIdentity> {
    const { isFresh, workersMax } = this.#pack;
    // Where each call has a process, none is started for this alone.
    const { pid, python, modules } = isFresh ? this.#described : await this.#pack.describe({ signal });
    return { pid: workersMax === 1 && !isFresh ? pid : undefined, python, numpy: modules["numpy"] ?? undefined };
  }

  async call(node: string, inputs: Record<string, unknown>, options: { signal?: AbortSignal }): Promise<unknown> {
    const raw = await this.#pack.callRaw(node, inputs, options);
    const definition = this.nodes.get(node);
    if (rawKind(raw) === "map") return openDict(raw, definition);
    return openOutputs(raw, definition);
  }
}

/** A dict that a node returned: `result` is outputs, all else is for the front end. */
function openDict(raw: RawValue, definition: NodeDefinition | undefined): Record<string, unknown> {
  const elements = rawElements(raw);
  const dict: Record<string, unknown> = {};
  for (let index = 0; index + 1 < elements.length; index += 2) {
    const [key, value] = [elements[index], elements[index + 1]];
    if (key === undefined || value === undefined) continue;
    const name = String(decodeRaw(key));
    dict[name] = name === "result" ? openOutputs(value, definition) : decodeRaw(value);
  }
  return dict;
}

/** A tuple of outputs, each still encoded; those declared as lists are opened one level more. */
function openOutputs(raw: RawValue, definition: NodeDefinition | undefined): unknown {
  const kind = rawKind(raw);
  if (kind !== "tuple" && kind !== "list") return decodeRaw(raw);
  return rawElements(raw).map((output, index) => {
    const isList = definition?.outputIsList[index] === true;
    return isList && (rawKind(output) === "list" || rawKind(output) === "tuple") ? rawElements(output) : output;
  });
}
