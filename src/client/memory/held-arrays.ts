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

/** Blocks of a message that lie one after the other, and where they are mapped once they are. */
interface Row {
  readonly blocks: [Attachment, ...Attachment[]];
  run: MappedRun | undefined;
}

export class HeldArrays implements ArrayReceiver {
  readonly memory: Memory;
  readonly #table: ArrayTable;
  readonly #blocks: readonly Attachment[];
  /** Made when somebody looks at the first array. */
  #rows: ReadonlyMap<number, Row> | undefined;
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
    const row = this.#rowOf(attachment);
    row.run ??= this.#map(row);
    const block = this.#blocks[attachment];
    const [first] = row.blocks;
    if (block === undefined) throw new RangeError(`there is no attachment ${attachment}`);
    return new Uint8Array(row.run.buffer, (block.page - first.page) * pageBytes, block.pages * pageBytes);
  }

  /** Maps blocks that lie one after the other at once: a process can't have mappings without end. */
  #map({ blocks }: Row): MappedRun {
    checkHoldable(blocks.reduce((sum, { pages }) => sum + pages, 0) * pageBytes);
    return this.memory.map(blocks);
  }

  #rowOf(attachment: number): Row {
    this.#rows ??= rowsOf(this.#blocks);
    const row = this.#rows.get(attachment);
    if (row === undefined) throw new RangeError(`there is no attachment ${attachment}`);
    return row;
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

/** By the index of each attachment, the row of blocks that it is in. */
function rowsOf(attachments: readonly Attachment[]): Map<number, Row> {
  const rows = new Map<number, Row>();
  let last: Row | undefined;
  const sorted = [...attachments.entries()].sort(
    ([, one], [, other]) => one.segment - other.segment || one.page - other.page,
  );
  for (const [index, block] of sorted) {
    if (last !== undefined && follows(last, block)) last.blocks.push(block);
    else last = { blocks: [block], run: undefined };
    rows.set(index, last);
  }
  return rows;
}

/** Whether a block begins where a row of blocks ends, and one buffer can hold all of them. */
function follows({ blocks }: Row, { segment, page, pages }: Attachment): boolean {
  const [first] = blocks;
  const last = blocks.at(-1) ?? first;
  const isNext = segment === last.segment && page === last.page + last.pages;
  return isNext && (page + pages - first.page) * pageBytes <= arrayBufferBytesMax;
}
