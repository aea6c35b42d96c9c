/**
 * The table of arrays that stands beside a message's value: entries as they cross, checked when they are read. Pure.
 *
 * An entry says what an array is and where its elements lie: in the table, or in a block that the frame names. In the
 * value an index stands for each. PROTOCOL.md, "Arrays". Every check throws AirlockError `value_invalid`.
 */
import { bytesOfElement, checkHoldable, elementCount, gathered, isOrder, spanOf } from "./array-layout.ts";
import { AirlockError } from "./errors.ts";
import { type ArrayKind, type ArrayOrder, NdArray } from "./values.ts";

/** Axes that an array may have. */
const axesMax = 64;

/** Stands in a value for an array of the table. */
export class ArrayIndex {
  readonly index: number;

  constructor(index: number) {
    this.index = index;
  }
}

/** Takes arrays out of a value that is being written. */
export interface ArraySender {
  /** @returns its index, or undefined where it is to stand in the value itself. */
  add(value: NdArray | Uint8Array): number | undefined;
  /** The same for one of a value that is passed on encoded. */
  forward(arrays: ArrayReceiver, index: number): number | undefined;
}

/** Finds the arrays that the indexes in one value stand for. */
export interface ArrayReceiver {
  /** @throws AirlockError `value_invalid`, `lease_gone`, or `limit_exceeded` where it is larger than JavaScript can hold. */
  at(index: number): NdArray | Uint8Array;
}

/** Where elements lie in a block: strides are missing where they lie dense. */
export interface Place {
  /** Which of the frame's attachments. */
  readonly attachment: number;
  /** Offset in the block of the element with all indexes 0, in bytes. */
  readonly offset: number;
  readonly strides: readonly number[] | undefined;
}

/** One array, as the table describes it. */
export interface ArrayEntry {
  /** `bytes` arrives as bytes. */
  readonly kind: ArrayKind | "bytes";
  readonly dtype: unknown;
  readonly shape: readonly number[];
  readonly order: ArrayOrder;
  readonly data: Uint8Array | Place;
}

/** An entry that stands for several arrays, whose elements follow one another. */
interface Run {
  readonly entry: ArrayEntry;
  /** Index of the first of them. */
  readonly first: number;
  readonly count: number;
  /** Bytes of one array's elements where they lie dense. */
  readonly bytes: number;
}

export class ArrayTable {
  readonly #runs: readonly Run[];
  readonly length: number;

  /**
   * @param items the table, decoded.
   * @param blockBytes the length of each block that the frame names.
   */
  constructor(items: unknown, blockBytes: readonly number[]) {
    if (!Array.isArray(items)) throw new AirlockError("value_invalid", "a table of arrays is a list");
    const runs: Run[] = [];
    let first = 0;
    for (const item of items) {
      const run = readRun(item, first, blockBytes);
      runs.push(run);
      first += run.count;
    }
    if (!Number.isSafeInteger(first)) throw malformed("it stands for too many arrays");
    this.#runs = runs;
    this.length = first;
  }

  /** What the table says of one array, of which an index stands in the value. */
  entry(index: number): ArrayEntry {
    const run = this.#runOf(index);
    if (run === undefined) throw new AirlockError("value_invalid", `there is no array ${index} in the table`);
    const { entry, count, bytes } = run;
    if (count === 1) return entry;
    const at = (index - run.first) * bytes;
    const { data } = entry;
    if (data instanceof Uint8Array) return { ...entry, data: data.subarray(at, at + bytes) };
    return { ...entry, data: { ...data, offset: data.offset + at } };
  }

  #runOf(index: number): Run | undefined {
    let [low, high] = [0, this.#runs.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      const run = this.#runs[middle];
      if (run === undefined) return undefined;
      if (index < run.first) high = middle;
      else if (index < run.first + run.count) return run;
      else low = middle + 1;
    }
    return undefined;
  }
}

function malformed(why: string): AirlockError {
  return new AirlockError("value_invalid", `an entry of a table of arrays makes no sense: ${why}`);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function readRun(item: unknown, first: number, blockBytes: readonly number[]): Run {
  if (!Array.isArray(item) || item.length < 5 || item.length > 6) {
    throw malformed("it needs kind, dtype, shape, order and data, and may have a count");
  }
  const [kind, dtype, shape, order, data, count = 1] = item as unknown[];
  if (kind !== "tensor" && kind !== "ndarray" && kind !== "bytes") throw malformed("its kind is unknown");
  if (!Array.isArray(shape) || shape.length > axesMax || !shape.every(isCount)) throw malformed("its shape is none");
  if (!isOrder(order, shape.length)) throw malformed("its order is neither C, F, nor a permutation of its axes");
  if (!isCount(count) || count < 1) throw malformed("its count is not 1 or more");
  if (kind === "bytes" && (dtype !== null || shape.length !== 1 || order !== "C")) throw malformed("bytes are a row");
  const elements = elementCount(shape);
  const element = kind === "bytes" ? 1 : bytesOfElement(dtype);
  const entry = { kind, dtype, shape, order } as const;
  if (data instanceof Uint8Array) {
    const bytes = element === undefined ? data.byteLength / count : elements * element;
    if (bytes * count !== data.byteLength) throw malformed(`${data.byteLength} bytes are not what it has`);
    return { entry: { ...entry, data }, first, count, bytes };
  }
  if (element === undefined) throw malformed("nobody knows how large its elements are");
  const place = readPlace(data, shape.length);
  const bytes = elements * element;
  checkPlace(place, { shape, element, bytes, count, blockBytes });
  return { entry: { ...entry, data: place }, first, count, bytes };
}

function readPlace(data: unknown, axes: number): Place {
  if (!Array.isArray(data) || data.length !== 3) throw malformed("its data are neither bytes nor a place in a block");
  const [attachment, offset, strides] = data as unknown[];
  const isPlace = isCount(attachment) && isCount(offset);
  const areStrides = Array.isArray(strides) && strides.length === axes && strides.every(Number.isSafeInteger);
  if (!isPlace || (strides !== null && !areStrides)) throw malformed("its data are no place in a block");
  return { attachment, offset, strides: strides === null ? undefined : (strides as number[]) };
}

interface Measures {
  readonly shape: readonly number[];
  readonly element: number;
  readonly bytes: number;
  readonly count: number;
  readonly blockBytes: readonly number[];
}

/** Every element lies inside the block. */
function checkPlace({ attachment, offset, strides }: Place, measures: Measures): void {
  const { shape, element, bytes, count, blockBytes } = measures;
  const room = blockBytes[attachment];
  if (room === undefined) throw malformed(`the frame names no block ${attachment}`);
  if (strides !== undefined && count > 1) throw malformed("several arrays have no strides");
  const [from, to] = strides === undefined ? [0, bytes * count] : spanOf(shape, strides, element);
  if (offset + from < 0 || offset + to > room) throw malformed("its elements lie outside of its block");
}

/** Whether an entry's elements lie as an array here has them. */
function isDense({ data }: ArrayEntry): boolean {
  return data instanceof Uint8Array || data.strides === undefined;
}

/**
 * The array that an entry describes: over the block's own memory where its elements lie dense there, else over a copy.
 *
 * @param memoryOf the memory of one of the frame's blocks.
 */
export function arrayOf(entry: ArrayEntry, memoryOf: (attachment: number) => Uint8Array): NdArray | Uint8Array {
  const { kind, dtype, shape, data } = entry;
  const elements = data instanceof Uint8Array ? data : elementsAt(entry, data, memoryOf);
  if (kind === "bytes") return elements;
  return new NdArray(kind, dtype, shape, elements, isDense(entry) ? entry.order : "C");
}

function elementsAt(
  { kind, dtype, shape }: ArrayEntry,
  { attachment, offset, strides }: Place,
  memoryOf: (attachment: number) => Uint8Array,
): Uint8Array {
  const element = kind === "bytes" ? 1 : (bytesOfElement(dtype) ?? 0);
  const bytes = elementCount(shape) * element;
  checkHoldable(bytes);
  if (bytes === 0) return new Uint8Array(0);
  const memory = memoryOf(attachment);
  if (strides !== undefined) return gathered(memory, offset, shape, strides, element);
  return memory.subarray(offset, offset + bytes);
}

/** A table as it is encoded. */
export function tableToWire(entries: readonly ArrayEntry[]): unknown[] {
  return entries.map(({ kind, dtype, shape, order, data }) => [
    kind,
    dtype,
    shape,
    order,
    data instanceof Uint8Array ? data : [data.attachment, data.offset, data.strides ?? null],
  ]);
}
