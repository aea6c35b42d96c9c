/**
 * Private mappings of blocks: what arrays that have arrived lie in, and whether anybody has written to them.
 *
 * Each message has mappings of its own: writing to one is seen by nobody else. A mapping lasts until all views of it are
 * garbage. The kernel knows which of its pages were written to: it has copied them.
 */
import { closeSync, openSync, readSync } from "node:fs";
import type { Attachment } from "../../transport/frame.ts";
import type { MemoryCalls } from "../../transport/libc.ts";
import { pageBytes } from "../../transport/segment-file.ts";

/** Blocks that lie one after the other in a segment, mapped together. */
export interface MappedRun {
  readonly buffer: ArrayBuffer;
  readonly address: number;
  readonly bytes: number;
  /** The blocks, with their offsets. */
  readonly blocks: readonly { readonly block: Attachment; readonly at: number }[];
}

/** Where bytes of a mapping lie in their block. */
export interface BlockPlace {
  readonly block: Attachment;
  readonly offset: number;
}

export interface MappingsOptions {
  readonly calls: Pick<MemoryCalls, "mapPrivate" | "unmap" | "viewOf">;
  /** Nothing looks at a run of blocks any more. */
  readonly onCollected: (blocks: readonly Attachment[]) => void;
}

/** What is left of a mapping once its views are garbage. */
type Remains = Omit<MappedRun, "buffer">;

export class Mappings {
  readonly #options: MappingsOptions;
  readonly #runs = new WeakMap<ArrayBuffer, Remains>();
  readonly #garbage = new FinalizationRegistry<Remains>((run) => this.#collected(run));

  constructor(options: MappingsOptions) {
    this.#options = options;
  }

  /** Maps blocks that lie one after the other; the caller has seen to it that the segment has them. */
  map(descriptor: number, blocks: readonly [Attachment, ...Attachment[]]): MappedRun {
    const { calls } = this.#options;
    const [{ page: firstPage }] = blocks;
    const bytes = blocks.reduce((sum, { pages }) => sum + pages, 0) * pageBytes;
    const address = calls.mapPrivate(descriptor, firstPage * pageBytes, bytes);
    const { buffer } = calls.viewOf(address, bytes);
    const placed = blocks.map((block) => ({ block, at: (block.page - firstPage) * pageBytes }));
    const remains = { address, bytes, blocks: placed };
    this.#runs.set(buffer, remains);
    this.#garbage.register(buffer, remains);
    return { ...remains, buffer };
  }

  #collected({ address, bytes, blocks }: Remains): void {
    this.#options.calls.unmap(address, bytes);
    this.#options.onCollected(blocks.map(({ block }) => block));
  }

  /** Where bytes lie, if that is in one block, as it was when it was mapped: undefined where anybody has written there. */
  unwrittenPlace(data: Uint8Array): BlockPlace | undefined {
    const run = this.#runs.get(data.buffer as ArrayBuffer);
    if (run === undefined) return undefined;
    const from = data.byteOffset;
    const to = from + data.byteLength;
    const found = run.blocks.find(({ block, at }) => at <= from && to <= at + block.pages * pageBytes);
    if (found === undefined || isWritten(run.address + from, data.byteLength)) return undefined;
    return { block: found.block, offset: from - found.at };
  }
}

const entryBytes = 8;
/** Entries of the page map that are read at once. */
const entriesAtOnce = 8192;
/** The upper half of an entry: present, swapped out, and whether the page is the file's and no copy. */
const isPresent = 2 ** 31;
const isSwapped = 2 ** 30;
const isFiles = 2 ** 29;

/** Whether any page of a private mapping is a copy; true where the kernel does not say. */
function isWritten(address: number, bytes: number): boolean {
  const first = Math.floor(address / pageBytes);
  const end = Math.ceil((address + bytes) / pageBytes);
  let pagemap: number;
  try {
    pagemap = openSync("/proc/self/pagemap", "r");
  } catch {
    return true;
  }
  try {
    const entries = new Uint32Array(2 * Math.min(entriesAtOnce, end - first));
    for (let page = first; page < end; page += entriesAtOnce) {
      const count = Math.min(entriesAtOnce, end - page);
      const read = readSync(pagemap, entries, 0, count * entryBytes, page * entryBytes);
      if (read !== count * entryBytes || hasCopy(entries, count)) return true;
    }
    return false;
  } catch {
    return true;
  } finally {
    closeSync(pagemap);
  }
}

function hasCopy(entries: Uint32Array, count: number): boolean {
  for (let index = 0; index < count; index++) {
    const upper = entries[2 * index + 1] ?? 0;
    const isThere = (upper & isPresent) !== 0 || (upper & isSwapped) !== 0;
    if (isThere && (upper & isFiles) === 0) return true;
  }
  return false;
}
