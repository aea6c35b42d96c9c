import { afterEach, expect, test } from "bun:test";
import { type BlockPlace, Mappings } from "../../../../src/client/memory/mappings.ts";
import type { Attachment } from "../../../../src/transport/frame.ts";
import { loadLibc } from "../../../../src/transport/libc.ts";
import { pageBytes } from "../../../../src/transport/segment-file.ts";
import { collected } from "../../../support/until.ts";

const libc = loadLibc();
const descriptors: number[] = [];
afterEach(() => {
  for (const descriptor of descriptors.splice(0)) libc.close(descriptor);
});

const block = (page: number, pages: number): Attachment => ({ segment: 1, page, pages, generation: 1 });

/** A segment of 16 pages, each filled with its number. */
function segment() {
  const descriptor = libc.createMemory("mapped");
  descriptors.push(descriptor);
  libc.resize(descriptor, 16 * pageBytes);
  const address = libc.mapShared(descriptor, 16 * pageBytes);
  const owners = libc.viewOf(address, 16 * pageBytes);
  for (let page = 0; page < 16; page++) owners.fill(page, page * pageBytes, (page + 1) * pageBytes);
  const over: Attachment[] = [];
  const mappings = new Mappings({ calls: libc, onCollected: (blocks) => void over.push(...blocks) });
  return { descriptor, owners, over, mappings };
}

test("a mapping shows its blocks, and what is written there is its own", () => {
  const { descriptor, owners, mappings } = segment();
  const run = mappings.map(descriptor, [block(3, 2), block(5, 1)]);
  const bytes = new Uint8Array(run.buffer);
  expect([bytes.byteLength, bytes[0], bytes[pageBytes], bytes[2 * pageBytes]]).toEqual([3 * pageBytes, 3, 4, 5]);
  bytes[0] = 99;
  expect(owners[3 * pageBytes]).toBe(3);
  expect(run.blocks.map(({ at }) => at)).toEqual([0, 2 * pageBytes]);
});

test("bytes are found in their block as long as nobody has written to their pages", () => {
  const { descriptor, mappings } = segment();
  const bytes = new Uint8Array(mappings.map(descriptor, [block(3, 2), block(5, 4)]).buffer);
  const whereIs = (from: number, to: number): BlockPlace | undefined =>
    mappings.unwrittenPlace(bytes.subarray(from, to));
  expect(whereIs(100, 200)).toEqual({ block: block(3, 2), offset: 100 });
  expect(whereIs(2 * pageBytes + 8, 6 * pageBytes)).toEqual({ block: block(5, 4), offset: 8 });
  // Reading makes pages present, and is no writing.
  expect(bytes[4 * pageBytes]).toBe(7);
  expect(whereIs(4 * pageBytes, 5 * pageBytes)?.offset).toBe(2 * pageBytes);
  bytes[4 * pageBytes + 17] = 1;
  expect(whereIs(4 * pageBytes, 5 * pageBytes)).toBeUndefined();
  expect(whereIs(3 * pageBytes, 4 * pageBytes + 1)).toBeUndefined();
  expect(whereIs(3 * pageBytes, 4 * pageBytes)?.offset).toBe(pageBytes);
  expect(whereIs(5 * pageBytes, 6 * pageBytes)?.offset).toBe(3 * pageBytes);
});

test("writing what was there already is writing", () => {
  const { descriptor, mappings } = segment();
  const bytes = new Uint8Array(mappings.map(descriptor, [block(3, 1)]).buffer);
  bytes[9] = 3;
  expect(mappings.unwrittenPlace(bytes)).toBeUndefined();
});

test("bytes of two blocks, and bytes of elsewhere, are in no block", () => {
  const { descriptor, mappings } = segment();
  const bytes = new Uint8Array(mappings.map(descriptor, [block(3, 2), block(5, 1)]).buffer);
  expect(mappings.unwrittenPlace(bytes.subarray(pageBytes, 3 * pageBytes))).toBeUndefined();
  expect(mappings.unwrittenPlace(new Uint8Array(10))).toBeUndefined();
});

test("a mapping lasts as long as any view of it, and then its blocks are over", async () => {
  const { descriptor, over, mappings } = segment();
  const view = (() => new Uint16Array(mappings.map(descriptor, [block(3, 2), block(5, 1)]).buffer, 10, 4))();
  for (let round = 0; round < 5; round++) {
    Bun.gc(true);
    await Bun.sleep(2);
  }
  expect([over, view[0]]).toEqual([[], 0x0303]);
  (() => new Uint8Array(mappings.map(descriptor, [block(9, 1)]).buffer))();
  await collected(() => over.length > 0, "the other mapping is over");
  expect(over).toEqual([block(9, 1)]);
  expect(view[1]).toBe(0x0303);
});
