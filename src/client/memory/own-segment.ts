/**
 * A segment that this process owns: its mapping, which pages of it are free, and the generations that readers look at.
 *
 * Invariant: a block's generation stands in the segment before anybody is told of the block, and changes when it is freed.
 */

import type { Attachment } from "../../transport/frame.ts";
import type { MemoryCalls } from "../../transport/libc.ts";
import { pageBytes } from "../../transport/segment-file.ts";
import { PageAllocator } from "./page-allocator.ts";

/** Calls to the kernel that a segment needs as long as it is there. */
export type OwnSegmentCalls = Pick<MemoryCalls, "viewOf" | "unmap">;

export interface OwnSegmentParts {
  readonly number: number;
  /** Whom its blocks may be given to; undefined for a worker, which has nobody to tell apart. */
  readonly audience: number | undefined;
  readonly descriptor: number;
  readonly address: number;
  readonly bytes: number;
  /** Pages before the first block. */
  readonly headerPages: number;
}

/** Pages for the generations of a segment that is cut into blocks: a u32 for each page. */
export function headerPagesOf(bytes: number): number {
  return Math.ceil((4 * (bytes / pageBytes)) / pageBytes);
}

export class OwnSegment {
  readonly number: number;
  readonly audience: number | undefined;
  readonly descriptor: number;
  readonly bytes: number;
  readonly #parts: OwnSegmentParts;
  readonly #calls: OwnSegmentCalls;
  readonly #pages: PageAllocator;
  #lastGeneration = 0;

  constructor(parts: OwnSegmentParts, calls: OwnSegmentCalls) {
    this.number = parts.number;
    this.audience = parts.audience;
    this.descriptor = parts.descriptor;
    this.bytes = parts.bytes;
    this.#parts = parts;
    this.#calls = calls;
    this.#pages = new PageAllocator(parts.headerPages, parts.bytes / pageBytes);
  }

  get isEmpty(): boolean {
    return this.#pages.isEmpty;
  }

  get freeBytes(): number {
    return this.#pages.freePages * pageBytes;
  }

  allocate(pages: number): Attachment | undefined {
    const page = this.#pages.allocate(pages);
    if (page === undefined) return undefined;
    // None is 0, which says that no block begins there.
    this.#lastGeneration = (this.#lastGeneration % 0xffff_ffff) + 1;
    this.#writeGeneration(page, this.#lastGeneration);
    return { segment: this.number, page, pages, generation: this.#lastGeneration };
  }

  free({ page, pages }: Attachment): void {
    this.#writeGeneration(page, 0);
    this.#pages.free(page, pages);
  }

  #writeGeneration(page: number, generation: number): void {
    const { buffer, byteOffset } = this.#calls.viewOf(this.#parts.address + 4 * page, 4);
    new DataView(buffer, byteOffset).setUint32(0, generation, true);
  }

  /** Writes into a block. */
  write({ page }: Attachment, offset: number, data: Uint8Array): void {
    if (data.byteLength === 0) return;
    this.#calls.viewOf(this.#parts.address + page * pageBytes + offset, data.byteLength).set(data);
  }

  /** Takes the mapping away; nothing may write here any more. */
  unmap(): void {
    this.#calls.unmap(this.#parts.address, this.#parts.bytes);
  }
}
