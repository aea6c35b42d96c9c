/**
 * Bodies with a table of arrays: `[table, value]`, taken apart and put together around parts that stay encoded.
 */

import { withoutRuns } from "./array-runs.ts";
import { type ArrayEntry, ArrayTable, tableToWire } from "./array-table.ts";
import { decode, encode } from "./codec.ts";
import { AirlockError } from "./errors.ts";
import { newHead, readHead, skipValue } from "./scan.ts";

/** Depth that a table may have. */
const tableDepthMax = 16;

/** Head of an array of two: nobody writes a longer form. */
const pairHead = Uint8Array.of(0x92);

/** @param value the encoded value, in parts. */
export function bodyWithTable(entries: readonly ArrayEntry[], value: readonly Uint8Array[]): Uint8Array[] {
  return [pairHead, encode(tableToWire(entries)), ...value];
}

/** A body's table, checked against the blocks that its frame names, and the value that stands beside it. */
export interface TabledBody {
  readonly table: ArrayTable;
  readonly value: Uint8Array;
}

/**
 * Takes a body apart; of the value nothing is looked at.
 *
 * @param blockBytes the length of each block that the frame names.
 * @throws AirlockError `value_invalid`.
 */
export function splitBody(body: Uint8Array, blockBytes: readonly number[]): TabledBody {
  const head = newHead();
  readHead(body, 0, head);
  if (body[0] !== pairHead[0]) throw new AirlockError("value_invalid", "a body with arrays is a table and a value");
  // The table is a list of lists of lists, and a structured type another few.
  const end = skipValue(body, head.start, tableDepthMax);
  const table = new ArrayTable(decode(body.subarray(head.start, end)), blockBytes);
  return { table, value: withoutRuns(body.subarray(end), table.length) };
}
