/**
 * The arrays of one message that is being written: which stand in the value, which in the table, and where the elements of
 * those lie.
 *
 * First all arrays are planned, at once, as the value is written; then they are placed, which may have to wait for memory
 * and for the server. What came in a block and is as it came goes on in that block, and nothing is copied. Invariant: what
 * is planned stays in use until the plan is closed, and what is placed is the addressee's until it returns it, or the
 * message is undone.
 */
import { bytesOfElement, elementCount, isOrder } from "../../transport/array-layout.ts";
import type { ArrayEntry, ArrayReceiver, ArraySender } from "../../transport/array-table.ts";
import { AirlockError } from "../../transport/errors.ts";
import type { Attachment } from "../../transport/frame.ts";
import { NdArray } from "../../transport/values.ts";
import { HeldArrays } from "./held-arrays.ts";
import type { Memory } from "./memory.ts";
import type { PairLeases } from "./pair-leases.ts";
import { Placed } from "./placed.ts";
import { copyInSteps } from "./segment-maker.ts";

/** Arrays below this stand in the message itself, up to `inlineBytesMax` of them. */
const largeBytesMin = 64 * 1024;
const inlineBytesMax = 1024 * 1024;
/** What is copied before the event loop has its turn. */
const copiedAtOnceMax = 64 * 1024 * 1024;
/** Where arrays that share a block begin: at multiples of this, which suits every element type and processor. */
const alignment = 64;

type Form = Omit<ArrayEntry, "data">;

/** An array of the table. */
type Item = Form &
  (
    | { readonly source: "inline"; readonly data: Uint8Array }
    | { readonly source: "fresh"; readonly data: Uint8Array }
    | {
        readonly source: "lease";
        readonly block: Attachment;
        readonly offset: number;
        readonly strides: readonly number[] | undefined;
      }
  );
type FreshItem = Extract<Item, { source: "fresh" }>;

/** Fresh arrays that share a block: each with its offset. */
interface Parcel {
  bytes: number;
  readonly items: { readonly item: FreshItem; readonly offset: number }[];
}

export class ArrayPlan implements ArraySender {
  readonly #memory: Memory;
  readonly #pair: PairLeases;
  readonly #items: Item[] = [];
  /** Made when they are needed: most messages have no arrays. */
  #indexes: Map<object, number> | undefined;
  #forwarded: Map<ArrayReceiver, Map<number, number | undefined>> | undefined;
  #inlineBytes = 0;

  constructor(memory: Memory, pair: PairLeases) {
    this.#memory = memory;
    this.#pair = pair;
  }

  /** Whether the message needs no table. */
  get isEmpty(): boolean {
    return this.#items.length === 0;
  }

  add(value: NdArray | Uint8Array): number | undefined {
    const data = value instanceof NdArray ? value.data : value;
    if (data.byteLength < largeBytesMin && (value instanceof Uint8Array || this.#fitsInline(data.byteLength))) {
      return undefined;
    }
    this.#indexes ??= new Map();
    const known = this.#indexes.get(value);
    if (known !== undefined) return known;
    const index = this.#push(this.#itemFor(formOf(value), data));
    this.#indexes.set(value, index);
    return index;
  }

  #fitsInline(bytes: number): boolean {
    if (this.#inlineBytes + bytes > inlineBytesMax) return false;
    this.#inlineBytes += bytes;
    return true;
  }

  #push(item: Item): number {
    return this.#items.push(item) - 1;
  }

  #itemFor(form: Form, data: Uint8Array): Item {
    const place = this.#memory.unwrittenPlace(data);
    const lease = place && this.#lease(form, place.block, place.offset, undefined);
    return lease ?? { ...form, source: "fresh", data };
  }

  /** The same block again; undefined where the addressee may not be passed its segment, or it is gone. */
  #lease(form: Form, block: Attachment, offset: number, strides: readonly number[] | undefined): Item | undefined {
    const segment = this.#memory.audienceOf(block.segment);
    if (segment === undefined || segment.audience !== this.#pair.audience) return undefined;
    if (!this.#memory.ledger.use(block)) return undefined;
    return { ...form, source: "lease", block, offset, strides };
  }

  forward(arrays: ArrayReceiver, index: number): number | undefined {
    this.#forwarded ??= new Map();
    const known = this.#forwarded.get(arrays) ?? new Map<number, number | undefined>();
    this.#forwarded.set(arrays, known);
    if (!known.has(index)) known.set(index, this.#forward(arrays, index));
    return known.get(index);
  }

  #forward(arrays: ArrayReceiver, index: number): number | undefined {
    if (!(arrays instanceof HeldArrays) || arrays.memory !== this.#memory) return this.add(arrays.at(index));
    const { data, kind, dtype, shape, order } = arrays.entry(index);
    const form = { kind, dtype, shape, order };
    if (data instanceof Uint8Array) return this.#push({ ...form, source: "inline", data });
    const block = arrays.block(data.attachment);
    const lease = block && this.#lease(form, block, data.offset, data.strides);
    return lease === undefined ? this.add(arrays.at(index)) : this.#push(lease);
  }

  /** Places all arrays, if that takes no waiting. */
  placeNow(): Placed | undefined {
    const parcels = this.#parcels();
    const copied = parcels.reduce((sum, { bytes }) => sum + bytes, 0);
    if (copied > copiedAtOnceMax || !this.#leases().every(({ block }) => this.#isShared(block))) return undefined;
    const blocks = this.#allocateNow(parcels);
    if (blocks === undefined) return undefined;
    for (const [index, { items }] of parcels.entries()) {
      const block = blocks[index];
      if (block !== undefined) for (const { item, offset } of items) this.#memory.write(block, offset, item.data);
    }
    return this.#placed(parcels, blocks);
  }

  #allocateNow(parcels: readonly Parcel[]): Attachment[] | undefined {
    const blocks: Attachment[] = [];
    for (const { bytes } of parcels) {
      const block = this.#memory.allocate(bytes, this.#pair.audience);
      if (block !== undefined) blocks.push(block);
      if (block !== undefined && this.#isShared(block)) continue;
      for (const each of blocks) this.#memory.ledger.unuse(each);
      return undefined;
    }
    return blocks;
  }

  #isShared({ segment }: Attachment): boolean {
    return this.#pair.isShared(segment);
  }

  /** Places all arrays, and waits for what that takes. Throws AirlockError `limit_exceeded`, or as the server answers. */
  async placeSoon(): Promise<Placed> {
    const parcels = this.#parcels();
    const blocks: Attachment[] = [];
    try {
      for (const { bytes } of parcels) blocks.push(await this.#memory.allocateSoon(bytes, this.#pair.audience));
      const segments = [...blocks, ...this.#leases().map(({ block }) => block)].map(({ segment }) => segment);
      for (const segment of new Set(segments)) await this.#pair.share(segment);
      for (const [index, { items }] of parcels.entries()) {
        const block = blocks[index];
        if (block !== undefined) await this.#fill(block, items);
      }
    } catch (error) {
      for (const block of blocks) this.#memory.ledger.unuse(block);
      throw error;
    }
    return this.#placed(parcels, blocks);
  }

  async #fill(block: Attachment, items: Parcel["items"]): Promise<void> {
    for (const { item, offset } of items) {
      await copyInSteps(item.data, (at, part) => this.#memory.write(block, offset + at, part));
    }
  }

  #leases(): Extract<Item, { source: "lease" }>[] {
    return this.#items.filter((item) => item.source === "lease");
  }

  /** Fresh arrays by blocks: each large one has its own, the small ones share one. */
  #parcels(): Parcel[] {
    const parcels: Parcel[] = [];
    const shared: Parcel = { bytes: 0, items: [] };
    for (const item of this.#items) {
      if (item.source !== "fresh") continue;
      const bytes = item.data.byteLength;
      if (bytes >= largeBytesMin) parcels.push({ bytes, items: [{ item, offset: 0 }] });
      else {
        shared.items.push({ item, offset: shared.bytes });
        shared.bytes += Math.ceil(bytes / alignment) * alignment;
      }
    }
    return shared.items.length === 0 ? parcels : [...parcels, shared];
  }

  /** Gives the blocks to the addressee. Those that are fresh are its alone from now on. */
  #placed(parcels: readonly Parcel[], blocks: readonly Attachment[]): Placed {
    const places = new Map<Item, { readonly block: Attachment; readonly offset: number }>();
    for (const [index, { items }] of parcels.entries()) {
      const block = blocks[index];
      if (block !== undefined) for (const { item, offset } of items) places.set(item, { block, offset });
    }
    const attachments: Attachment[] = [];
    const numbers = new Map<string, number>();
    const attach = (block: Attachment): number => {
      const key = `${block.segment} ${block.page}`;
      const known = numbers.get(key);
      if (known !== undefined) return known;
      numbers.set(key, attachments.length);
      return attachments.push(block) - 1;
    };
    const entries = this.#items.map((item): ArrayEntry => entryOf(item, places, attach));
    try {
      this.#checkCount(attachments.length);
      return new Placed(this.#memory, this.#pair, attachments, entries);
    } finally {
      for (const block of blocks) this.#memory.ledger.unuse(block);
    }
  }

  #checkCount(count: number): void {
    const { attachmentsMax } = this.#memory.options;
    if (count <= attachmentsMax) return;
    throw new AirlockError("limit_exceeded", `${count} large arrays in one message are more than ${attachmentsMax}`, {
      hint: "send them in several calls, or as a batch in one array",
    });
  }

  /** The message is on its way, or will not be sent: what was planned is no longer kept by this. */
  close(): void {
    for (const { block } of this.#leases()) this.#memory.ledger.unuse(block);
    this.#items.length = 0;
  }
}

function formOf(value: NdArray | Uint8Array): Form {
  if (value instanceof Uint8Array) return { kind: "bytes", dtype: null, shape: [value.byteLength], order: "C" };
  const { kind, dtype, shape, order, data } = value;
  const bytes = bytesOfElement(dtype);
  // Who gets it refuses it: its elements must be all there, and their length known, to be found in a block.
  if (bytes === undefined || elementCount(shape) * bytes !== data.byteLength || !isOrder(order, shape.length)) {
    const what = `${JSON.stringify(dtype)} of shape [${shape.join(", ")}] in the order ${String(order)}`;
    throw new AirlockError("value_unsupported", `${data.byteLength} bytes are no array of ${what}`);
  }
  return { kind, dtype, shape, order };
}

function entryOf(
  item: Item,
  places: ReadonlyMap<Item, { readonly block: Attachment; readonly offset: number }>,
  attach: (block: Attachment) => number,
): ArrayEntry {
  const { kind, dtype, shape, order } = item;
  const form = { kind, dtype, shape, order };
  if (item.source === "inline") return { ...form, data: item.data };
  if (item.source === "lease") {
    return { ...form, data: { attachment: attach(item.block), offset: item.offset, strides: item.strides } };
  }
  const place = places.get(item);
  if (place === undefined) throw new RangeError("an array was not placed");
  return { ...form, data: { attachment: attach(place.block), offset: place.offset, strides: undefined } };
}
