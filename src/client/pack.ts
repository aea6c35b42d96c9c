/**
 * A pack that this host has opened: what its nodes are, and calls to them. Holds no state of the pack's.
 */
import { decode } from "../transport/codec.ts";
import {
  type OpenResult,
  type PackDescription,
  type PrepareResult,
  packDescriptionSchema,
  validate,
} from "../transport/control.ts";
import type { RawValue } from "../transport/values.ts";
import type { CallOptions } from "./call-options.ts";

/** The connection that a pack makes its calls on. */
export interface PackCaller {
  call(
    peer: number,
    method: string,
    args: readonly unknown[],
    keywords: Record<string, unknown>,
    options: CallOptions,
  ): Promise<RawValue>;
  prepare(pack: number, options: CallOptions): Promise<PrepareResult>;
  closePack(pack: number): Promise<void>;
}

export class Pack {
  readonly name: string;
  /** The pack's folder, absolute. */
  readonly folder: string;
  /** What the manifest asks for that is not carried out yet. */
  readonly warnings: readonly string[];
  readonly #airlock: PackCaller;
  readonly #peer: number;

  /** Use `Airlock.open`. */
  constructor(airlock: PackCaller, opened: OpenResult) {
    this.#airlock = airlock;
    this.#peer = opened.pack;
    this.name = opened.name;
    this.folder = opened.folder;
    this.warnings = opened.warnings;
  }

  /** Makes the pack's environment, where that was not done yet. A first call does so too. */
  prepare(options: CallOptions = {}): Promise<PrepareResult> {
    return this.#airlock.prepare(this.#peer, options);
  }

  /** What the pack's worker tells of itself and its nodes; starts it where it isn't running. */
  async describe(options: CallOptions = {}): Promise<PackDescription> {
    const answer = decode((await this.#airlock.call(this.#peer, "describe", [], {}, options)).bytes);
    return validate(packDescriptionSchema, answer, `description by pack ${this.name}`);
  }

  /**
   * Calls a node with its inputs.
   *
   * @returns what the node's function returned: of a V1 node, a `Tuple` of its outputs.
   * @throws AirlockError `remote_exception` with the exception where the node raised one, `worker_died` where its process
   * ended, or whatever kept the call from being made.
   */
  async call(node: string, inputs: Record<string, unknown> = {}, options: CallOptions = {}): Promise<unknown> {
    return decode((await this.callRaw(node, inputs, options)).bytes);
  }

  /** As {@link call}, but gives the result as it came; to be passed on without a change of type. */
  callRaw(node: string, inputs: Record<string, unknown> = {}, options: CallOptions = {}): Promise<RawValue> {
    return this.#airlock.call(this.#peer, "run", [node], inputs, options);
  }

  /** Ends the pack's worker. Opening the folder again gives a fresh one. */
  close(): Promise<void> {
    return this.#airlock.closePack(this.#peer);
  }
}
