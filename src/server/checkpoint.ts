/**
 * The state of a pack's nodes that a slot's workers leave behind for the next one: bytes, which nobody here decodes.
 *
 * Invariant: at most one, the last; a worker that can't live with it is the last one that gets it.
 */
import { decodeRaw } from "../transport/codec.ts";
import { type AirlockError, toAirlockError } from "../transport/errors.ts";
import { rawElements } from "../transport/scan.ts";
import { RawValue } from "../transport/values.ts";

export class Checkpoint {
  #state: Uint8Array | undefined;

  get isThere(): boolean {
    return this.#state !== undefined;
  }

  /** Gives it to a worker. Returns why that could not be done: the worker refused it, or died of it, and no other gets it. */
  async give(restore: (state: RawValue) => Promise<unknown>): Promise<AirlockError | undefined> {
    if (this.#state === undefined) return undefined;
    try {
      await restore(new RawValue(this.#state));
      return undefined;
    } catch (error) {
      this.drop();
      return toAirlockError(error);
    }
  }

  /**
   * Takes an event's body, `["checkpoint", state]`; one that says something else is passed over.
   *
   * @throws AirlockError `value_invalid` where it is no value.
   */
  take(body: Uint8Array): void {
    const [name, state, ...rest] = rawElements(new RawValue(body.slice()));
    if (name === undefined || state === undefined || rest.length > 0 || decodeRaw(name) !== "checkpoint") return;
    this.#state = state.bytes;
  }

  drop(): void {
    this.#state = undefined;
  }
}
