/**
 * Calls to a pack whose worker is not there yet, with copies of their frames, in the order in which they came.
 *
 * Invariant: no more than `bytesMax` of frames wait, whoever sends them.
 */
import type { Frame } from "../transport/frame.ts";
import type { Call } from "./session.ts";

export class WaitingCalls {
  readonly #bytesMax: number;
  #frames = new Map<Call, Frame>();
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get count(): number {
    return this.#frames.size;
  }

  get calls(): Iterable<Call> {
    return this.#frames.keys();
  }

  /** Takes a call and a copy of its frame; returns false where too much waits already. */
  add(call: Call, frame: Frame): boolean {
    if (this.#bytes + frame.byteLength > this.#bytesMax) return false;
    this.#bytes += frame.byteLength;
    this.#frames.set(call, frame.slice());
    return true;
  }

  remove(call: Call): void {
    this.#bytes -= this.#frames.get(call)?.byteLength ?? 0;
    this.#frames.delete(call);
  }

  /** Hands out all of them. */
  take(): Iterable<readonly [Call, Frame]> {
    const frames = this.#frames;
    this.#frames = new Map();
    this.#bytes = 0;
    return frames;
  }
}
