/**
 * Cuts a stream of bytes into frames, whatever chunks it comes in. Pure: bytes in, frames out.
 *
 * Invariant: a frame's header is checked before anything that follows it is buffered.
 */
import { checkHeader, type Frame, frameLength, headerBytes, readU32 } from "./frame.ts";
import type { Limits } from "./limits.ts";

/** A first allocation for a frame that did not arrive whole; a header alone should not reserve its whole length. */
const partialBytesMin = 64 * 1024;

/**
 * Cuts a byte stream into frames, however it is chopped up.
 *
 * Frames that lie whole in a chunk are handed on as views into it, without a copy: a sink that keeps one past its
 * return must copy it.
 */
export class FrameAssembler {
  readonly #limits: Limits;
  readonly #admit: (header: Uint8Array) => void;
  #partial = new Uint8Array(0);
  #have = 0;

  /** @param admit refuses, by throwing, a frame whose header is well-formed but out of place here. */
  constructor(limits: Limits, admit: (header: Uint8Array) => void = () => undefined) {
    this.#limits = limits;
    this.#admit = admit;
  }

  /** Bytes of an unfinished frame that are held back. */
  get pendingBytes(): number {
    return this.#have;
  }

  /**
   * Takes the next bytes of the stream and passes on each frame that they complete.
   *
   * @throws AirlockError as {@link checkHeader} and `admit`; the stream is unusable afterwards.
   */
  push(chunk: Uint8Array, sink: (frame: Frame) => void): void {
    let at = 0;
    while (at < chunk.byteLength) {
      if (this.#have > 0) {
        at += this.#continuePartial(chunk.subarray(at), sink);
        continue;
      }
      const rest = chunk.byteLength - at;
      if (rest >= headerBytes) {
        const total = headerBytes + readU32(chunk, at);
        // One view serves the check too, which looks at the header alone.
        const frame = chunk.subarray(at, at + total);
        this.#check(frame);
        if (rest >= total) {
          sink(frame);
          at += total;
          continue;
        }
      }
      this.#append(chunk.subarray(at));
      return;
    }
  }

  /** Adds to the unfinished frame and passes it on once whole; returns how many bytes of `rest` it took. */
  #continuePartial(rest: Uint8Array, sink: (frame: Frame) => void): number {
    const target = this.#have < headerBytes ? headerBytes : headerBytes + frameLength(this.#partial);
    const taken = rest.subarray(0, target - this.#have);
    this.#append(taken);
    if (this.#have < headerBytes) return taken.byteLength;
    if (target === headerBytes) this.#check(this.#partial.subarray(0, headerBytes));
    if (this.#have === headerBytes + frameLength(this.#partial)) {
      const frame = this.#partial.subarray(0, this.#have);
      this.#partial = new Uint8Array(0);
      this.#have = 0;
      sink(frame);
    }
    return taken.byteLength;
  }

  #check(header: Uint8Array): void {
    checkHeader(header, this.#limits);
    this.#admit(header);
  }

  #append(bytes: Uint8Array): void {
    const needed = this.#have + bytes.byteLength;
    if (needed > this.#partial.byteLength) {
      const grown = new Uint8Array(
        Math.max(needed, Math.min(partialBytesMin, needed * 2), this.#partial.byteLength * 2),
      );
      grown.set(this.#partial.subarray(0, this.#have));
      this.#partial = grown;
    }
    this.#partial.set(bytes, this.#have);
    this.#have = needed;
  }
}
