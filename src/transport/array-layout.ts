/**
 * Where the elements of an array lie: bytes of an element, bounds of strides, and dense copies. Pure.
 *
 * Every check throws AirlockError `value_invalid`, as what is checked has come from a peer.
 */
import { AirlockError } from "./errors.ts";
import type { ArrayOrder } from "./values.ts";

/** What an `ArrayBuffer` can hold; the engine has no larger ones. */
export const arrayBufferBytesMax = 2 ** 32;

/** Bytes of one element of the types that torch and numpy share, or that torch has and numpy gets from ml_dtypes. */
const elementBytes: ReadonlyMap<string, number> = new Map([
  ...["bool", "uint8", "int8"].map((name) => [name, 1] as const),
  ...["uint16", "int16", "float16", "bfloat16"].map((name) => [name, 2] as const),
  ...["uint32", "int32", "float32"].map((name) => [name, 4] as const),
  ...["uint64", "int64", "float64", "complex64"].map((name) => [name, 8] as const),
  ["complex128", 16],
  ...["e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu"].map((form) => [`float8_${form}`, 1] as const),
]);

/** Bytes of one element; undefined where the type is none that this side knows. */
export function bytesOfElement(dtype: unknown): number | undefined {
  if (Array.isArray(dtype)) return bytesOfFields(dtype);
  if (typeof dtype !== "string") return undefined;
  const known = elementBytes.get(dtype);
  if (known !== undefined) return known;
  // numpy's own: byte order, kind, size, and the unit of a time.
  const parts = /^[<>|=]([a-zA-Z])(\d+)(?:\[[^\]]*\])?$/.exec(dtype);
  const [, kind, size] = parts ?? [];
  return size === undefined ? undefined : Number(size) * (kind === "U" ? 4 : 1);
}

/** A structured type: its fields lie one after the other, those that numpy names padding too. */
function bytesOfFields(fields: readonly unknown[]): number | undefined {
  let sum = 0;
  for (const field of fields) {
    if (!Array.isArray(field)) return undefined;
    const [, dtype, shape = []] = field as unknown[];
    const bytes = bytesOfElement(dtype);
    const lengths: readonly unknown[] = Array.isArray(shape) ? shape : [shape];
    if (bytes === undefined || !lengths.every((length) => typeof length === "number")) return undefined;
    sum += lengths.reduce<number>((product, length) => product * (length as number), bytes);
  }
  return sum;
}

/** How many elements an array of this shape has. */
export function elementCount(shape: readonly number[]): number {
  const count = shape.includes(0) ? 0 : shape.reduce((product, length) => product * length, 1);
  if (Number.isSafeInteger(count)) return count;
  throw new AirlockError("value_invalid", `an array of shape [${shape.join(", ")}] has too many elements`);
}

/** Whether an order is `C`, `F`, or a permutation of so many axes. */
export function isOrder(order: unknown, axes: number): order is ArrayOrder {
  if (order === "C" || order === "F") return true;
  if (!Array.isArray(order) || order.length !== axes) return false;
  const seen = new Set(order);
  return seen.size === axes && order.every((axis) => Number.isSafeInteger(axis) && axis >= 0 && axis < axes);
}

/** The byte strides of an array whose elements lie dense in this order. */
export function denseStrides(shape: readonly number[], order: ArrayOrder, bytes: number): number[] {
  const axes = shape.map((_, axis) => axis);
  const slowestFirst = order === "C" ? axes : order === "F" ? axes.toReversed() : order;
  const strides = new Array<number>(shape.length).fill(0);
  let stride = bytes;
  for (const axis of slowestFirst.toReversed()) {
    strides[axis] = stride;
    stride *= shape[axis] ?? 1;
  }
  return strides;
}

/** The first byte of the elements, and the one after the last, from the element with all indexes 0. */
export function spanOf(
  shape: readonly number[],
  strides: readonly number[],
  bytes: number,
): [from: number, to: number] {
  if (shape.includes(0)) return [0, 0];
  let [from, to] = [0, bytes];
  for (const [axis, length] of shape.entries()) {
    const reach = (length - 1) * (strides[axis] ?? 0);
    if (reach < 0) from += reach;
    else to += reach;
  }
  return [from, to];
}

/**
 * A dense copy of elements that lie anyhow, in the order `C`.
 *
 * @param at the offset of the element with all indexes 0.
 * @throws AirlockError `limit_exceeded` where it would be larger than what JavaScript can hold.
 */
export function gathered(
  memory: Uint8Array,
  at: number,
  shape: readonly number[],
  strides: readonly number[],
  bytes: number,
): Uint8Array {
  const count = elementCount(shape);
  checkHoldable(count * bytes);
  const dense = new Uint8Array(count * bytes);
  const rowLength = shape.at(-1) ?? 1;
  const rowStride = strides.at(-1) ?? bytes;
  const index = new Array<number>(Math.max(0, shape.length - 1)).fill(0);
  let from = at;
  for (let to = 0; to < dense.byteLength; ) {
    to = copyRow(memory, from, dense, to, { rowLength, rowStride, bytes });
    from = nextRow(index, from, shape, strides);
  }
  return dense;
}

function copyRow(
  memory: Uint8Array,
  from: number,
  dense: Uint8Array,
  to: number,
  { rowLength, rowStride, bytes }: { rowLength: number; rowStride: number; bytes: number },
): number {
  if (rowStride === bytes) {
    dense.set(memory.subarray(from, from + rowLength * bytes), to);
    return to + rowLength * bytes;
  }
  let [source, target] = [from, to];
  for (let element = 0; element < rowLength; element++) {
    for (let byte = 0; byte < bytes; byte++) dense[target + byte] = memory[source + byte] ?? 0;
    source += rowStride;
    target += bytes;
  }
  return target;
}

/** Counts up the indexes of all axes but the last; returns where that row begins. */
function nextRow(index: number[], from: number, shape: readonly number[], strides: readonly number[]): number {
  let at = from;
  for (let axis = index.length - 1; axis >= 0; axis--) {
    const position = (index[axis] ?? 0) + 1;
    const stride = strides[axis] ?? 0;
    if (position < (shape[axis] ?? 0)) {
      index[axis] = position;
      return at + stride;
    }
    index[axis] = 0;
    at -= (position - 1) * stride;
  }
  return at;
}

/** An array's elements dense in the order `C`; a copy where they lie in another. */
export function inRowOrder(array: {
  readonly dtype: unknown;
  readonly shape: readonly number[];
  readonly order: ArrayOrder;
  readonly data: Uint8Array;
}): { readonly order: "C"; readonly data: Uint8Array } {
  const { dtype, shape, order, data } = array;
  if (order === "C") return { order, data };
  const count = elementCount(shape);
  const bytes = bytesOfElement(dtype) ?? (count === 0 ? 0 : data.byteLength / count);
  if (count * bytes !== data.byteLength || !isOrder(order, shape.length)) {
    const lengths = `${data.byteLength} bytes for the shape [${shape.join(", ")}] in the order ${String(order)}`;
    throw new AirlockError("value_unsupported", `an array with ${lengths} is not one`);
  }
  return { order: "C", data: gathered(data, 0, shape, denseStrides(shape, order, bytes), bytes) };
}

/** @throws AirlockError `limit_exceeded`. */
export function checkHoldable(bytes: number): void {
  if (bytes <= arrayBufferBytesMax) return;
  throw new AirlockError("limit_exceeded", `an array of ${bytes} bytes is larger than JavaScript can hold: 4 GiB`, {
    hint: "pass it on without reading it (callRaw), or have the node return it in parts",
  });
}
