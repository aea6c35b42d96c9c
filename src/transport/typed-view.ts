/**
 * Elements as a typed array over the same memory. Pure.
 */

/** The typed arrays that JavaScript has. */
export type TypedArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | BigUint64Array
  | BigInt64Array
  | Float16Array
  | Float32Array
  | Float64Array;

interface TypedArrayClass {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBuffer, at: number, length: number): TypedArray;
}

/** By the name of the element type; a bool is a byte of 0 or 1. */
const classes: ReadonlyMap<string, TypedArrayClass> = new Map<string, TypedArrayClass>([
  ["bool", Uint8Array],
  ["uint8", Uint8Array],
  ["int8", Int8Array],
  ["uint16", Uint16Array],
  ["int16", Int16Array],
  ["uint32", Uint32Array],
  ["int32", Int32Array],
  ["uint64", BigUint64Array],
  ["int64", BigInt64Array],
  ["float16", Float16Array],
  ["float32", Float32Array],
  ["float64", Float64Array],
]);

/**
 * The typed array over an array's elements: no copy, and what is written there is written to the array.
 *
 * @throws TypeError where JavaScript has no such type; RangeError where the elements lie where no typed array can begin.
 */
export function typedView(dtype: unknown, data: Uint8Array): TypedArray {
  const View = typeof dtype === "string" ? classes.get(dtype) : undefined;
  if (View === undefined) {
    throw new TypeError(`JavaScript has no typed array of ${JSON.stringify(dtype)}: read the bytes in \`data\``);
  }
  const size = View.BYTES_PER_ELEMENT;
  if (data.byteOffset % size !== 0) {
    const where = `its elements begin at byte ${data.byteOffset} of their buffer, which is no multiple of ${size}`;
    throw new RangeError(`no ${View.name} can lie over this array: ${where}; copy them first (\`data.slice()\`)`);
  }
  if (data.byteLength % size !== 0) {
    throw new RangeError(`${data.byteLength} bytes are no whole number of elements of ${String(dtype)}`);
  }
  return new View(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength / size);
}
