/**
 * The arrays of one message that has arrived: its table, and the blocks that its frame names, which it uses.
 *
 * Blocks are mapped when somebody looks at an array, and each lasts as long as any view of it does. Of a value that stays
 * encoded, none is mapped: it keeps the blocks themselves, to be passed on.
 */

import { arrayBufferBytesMax, checkHoldable } from "../../transport/array-layout.ts";
import { type ArrayEntry, type ArrayReceiver, type ArrayTable, arrayOf } from "../../transport/array-table.ts";
import type { Attachment } from "../../transport/frame.ts";
import { pageBytes } from "../../transport/segment-file.ts";
import type { NdArray } from "../../transport/values.ts";
import type { MappedRun } from "./mappings.ts";
import type { Memory } from "./memory.ts";

export class HeldArrays implements ArrayReceiver {
  readonly memory: Memory;
  readonly #table: ArrayTable;
  readonly #blocks: readonly Attachment[];
  /** Mapped runs by the index of each attachment in them. */
  readonly #runs = new Map<number, MappedRun>();
  #isKept = false;

  /** @param blocks are used already, once each. */
  constructor(memory: Memory, table: ArrayTable, blocks: readonly Attachment[]) {
    this.memory = memory;
    this.#table = table;
    this.#blocks = blocks;
  }

  at(index: number): NdArray | Uint8Array {
    return arrayOf(this.#table.entry(index), (attachment) => this.#memoryOf(attachment));
  }

  /** What the table says of an array. */
  entry(index: number): ArrayEntry {
    return this.#table.entry(index);
  }

  /** The block that an attachment is. */
  block(attachment: number): Attachment | undefined {
    return this.#blocks[attachment];
  }

  #memoryOf(attachment: number): Uint8Array {
    const run = this.#runs.get(attachment) ?? this.#map(attachment);
    const block = this.#blocks[attachment];
    const place = run.blocks.find((each) => each.block.page === block?.page);
    if (place === undefined) throw new RangeError(`there is no attachment ${attachment}`);
    return new Uint8Array(run.buffer, place.at, place.block.pages * pageBytes);
  }

  /** Maps a block, and with it those that lie before and after it: a process can't have mappings without end. */
  #map(attachment: number): MappedRun {
    const indexes = this.#neighbours(attachment);
    const blocks = indexes.map((index) => this.#blocks[index]).filter((block) => block !== undefined);
    const [first, ...others] = blocks;
    if (first === undefined) throw new RangeError(`there is no attachment ${attachment}`);
    checkHoldable(blocks.reduce((sum, { pages }) => sum + pages, 0) * pageBytes);
    const run = this.memory.map([first, ...others]);
    for (const index of indexes) this.#runs.set(index, run);
    return run;
  }

  /** Indexes of the attachments that lie in one row with one of them, in that order. */
  #neighbours(attachment: number): number[] {
    const own = this.#blocks[attachment];
    if (own === undefined) return [];
    const inSegment = [...this.#blocks.entries()]
      .filter(([, block]) => block.segment === own.segment)
      .sort(([, one], [, other]) => one.page - other.page);
    const rows: [number, Attachment][][] = [];
    for (const [index, block] of inSegment) {
      const row = rows.at(-1);
      if (row !== undefined && follows(row, block)) row.push([index, block]);
      else rows.push([[index, block]]);
    }
    const row = rows.find((each) => each.some(([index]) => index === attachment)) ?? [];
    return row.map(([index]) => index);
  }

  /** The message stays encoded: its blocks are used until this is garbage. */
  keep(): this {
    this.#isKept = true;
    this.memory.keptBlocks.register(this, this.#blocks);
    return this;
  }

  /** The message has been read. What was mapped is used by its views; all else is not needed, unless it is kept. */
  settle(): void {
    if (!this.#isKept) for (const block of this.#blocks) this.memory.ledger.unuse(block);
  }
}

/** Whether a block begins where a row of blocks ends, and all of it fits one mapping. */
function follows(row: readonly [number, Attachment][], { page, pages }: Attachment): boolean {
  const last = row.at(-1)?.[1];
  const first = row[0]?.[1];
  if (last === undefined || first === undefined) return false;
  const bytes = (page + pages - first.page) * pageBytes;
  return last.page + last.pages === page && bytes <= arrayBufferBytesMax;
}
