/**
 * Makers of segments' memory, behind one interface: what the kernel gives, and what it holds receivers to.
 *
 * A segment is made empty of pages: whoever owns it takes the memory, in its own time. Once it is sealed, `memfd` lets
 * nobody write to it but through the mappings that there are already, nor change its size; its twin leaves all of that to
 * good manners, and says so.
 */
import { AirlockError } from "./errors.ts";
import { type MemoryCalls, Seal } from "./libc.ts";

/** Bytes of the pages that blocks are counted in, whatever the processor's are. */
export const pageBytes = 4096;

export const segmentKinds = ["memfd", "shm"] as const;
export type SegmentKind = (typeof segmentKinds)[number];

export type SegmentCalls = Pick<
  MemoryCalls,
  "createMemory" | "createUnlinkedMemory" | "sizeOf" | "resize" | "addSeals"
> & { close(descriptor: number): void };

export interface SegmentMaker {
  readonly kind: SegmentKind;
  /** Whether the kernel keeps others from writing once a segment is sealed. */
  readonly sealed: boolean;
  /** A new file of so many bytes, without pages yet; returns its descriptor, close-on-exec. */
  make(bytes: number): number;
  /**
   * Fixes a file as it is, but for what is written through mappings that were made before.
   *
   * @throws AirlockError `bad_request` where it no longer has as many bytes as it was made with.
   */
  seal(descriptor: number, bytes: number): void;
}

/**
 * The maker of this kind.
 *
 * @param kind `memfd` gives its twin where the kernel cannot make or seal one (Linux before 5.1).
 */
export function newSegmentMaker(calls: SegmentCalls, kind: SegmentKind): SegmentMaker {
  if (kind === "shm") return new ShmSegments(calls);
  const maker = new MemfdSegments(calls);
  return canMake(maker, calls) ? maker : new ShmSegments(calls);
}

function canMake(maker: SegmentMaker, calls: SegmentCalls): boolean {
  let descriptor: number | undefined;
  try {
    descriptor = maker.make(pageBytes);
    maker.seal(descriptor, pageBytes);
    return true;
  } catch {
    return false;
  } finally {
    if (descriptor !== undefined) calls.close(descriptor);
  }
}

class MemfdSegments implements SegmentMaker {
  readonly kind = "memfd";
  readonly sealed = true;
  readonly #calls: SegmentCalls;

  constructor(calls: SegmentCalls) {
    this.#calls = calls;
  }

  make(bytes: number): number {
    return sized(this.#calls, this.#calls.createMemory("airlock-segment"), bytes);
  }

  seal(descriptor: number, bytes: number): void {
    this.#calls.addSeals(descriptor, Seal.shrink | Seal.grow | Seal.futureWrite | Seal.seal);
    // Only now nobody can change it any more.
    checkSize(this.#calls, descriptor, bytes);
  }
}

class ShmSegments implements SegmentMaker {
  readonly kind = "shm";
  readonly sealed = false;
  readonly #calls: SegmentCalls;

  constructor(calls: SegmentCalls) {
    this.#calls = calls;
  }

  make(bytes: number): number {
    const name = `airlock-segment-${crypto.randomUUID()}`;
    return sized(this.#calls, this.#calls.createUnlinkedMemory(name), bytes);
  }

  seal(descriptor: number, bytes: number): void {
    checkSize(this.#calls, descriptor, bytes);
  }
}

/** Gives a new file its size; closes it where that can't be. */
function sized(calls: SegmentCalls, descriptor: number, bytes: number): number {
  try {
    calls.resize(descriptor, bytes);
  } catch (error) {
    calls.close(descriptor);
    throw error;
  }
  return descriptor;
}

function checkSize(calls: SegmentCalls, descriptor: number, bytes: number): void {
  const size = calls.sizeOf(descriptor);
  if (size === bytes) return;
  throw new AirlockError("bad_request", `the segment has ${size} bytes by now, and was made with ${bytes}`, {
    hint: "its owner must leave its size as it is",
  });
}
