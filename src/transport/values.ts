/**
 * Python values that JavaScript has no type for. Each keeps what it needs to go back exactly as it came.
 *
 * What JavaScript has keeps its own type: numbers, bigint, strings, `Uint8Array` (bytes), `Array` (list), `Set` (set),
 * plain objects and `Map` (dict), `null` (None). The table is in PROTOCOL.md, "Values".
 */
import type { ArrayReceiver } from "./array-table.ts";
import type { RawReferences } from "./references.ts";
import { type TypedArray, typedView } from "./typed-view.ts";

/** A Python tuple. */
export class Tuple<T = unknown> extends Array<T> {
  /** `Array.prototype.map` and friends give plain arrays: a mapped tuple is a list. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }

  static override of<T>(...items: T[]): Tuple<T> {
    return Tuple.from(items);
  }

  static override from<T>(items: Iterable<T> | ArrayLike<T>): Tuple<T> {
    const tuple = new Tuple<T>();
    for (const item of Array.from(items)) tuple.push(item);
    return tuple;
  }
}

/** A Python frozenset. */
export class FrozenSet<T = unknown> extends Set<T> {}

/** A Python complex number. */
export class Complex {
  readonly real: number;
  readonly imag: number;

  constructor(real: number, imag: number) {
    this.real = real;
    this.imag = imag;
  }
}

/** A number that is a Python float even when it is whole. A plain whole number is sent as an int. */
export class Float {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

/** What an array becomes where it arrives: `tensor` a torch tensor where torch is installed, `ndarray` a numpy array. */
export type ArrayKind = "tensor" | "ndarray";

/**
 * How the elements of an array lie one after the other. `C`: last axis fastest, `F`: first axis fastest; or the axes, the
 * slowest first, as `[0, 2, 3, 1]` for what torch calls channels last.
 */
export type ArrayOrder = "C" | "F" | readonly number[];

/** A tensor or array: its elements as bytes, little-endian, in `order`. */
export class NdArray {
  readonly kind: ArrayKind;
  /** The element type by name (`float32`, `bfloat16` …), a numpy type string (`<U5`), or a structured description. */
  readonly dtype: unknown;
  readonly shape: readonly number[];
  readonly order: ArrayOrder;
  /**
   * Of an array that has arrived: memory that is this process's alone, as soon as it is written to. It may be a view
   * into a larger buffer, which must not be transferred (to a `Worker`, say): copy the elements first.
   */
  readonly data: Uint8Array;

  constructor(kind: ArrayKind, dtype: unknown, shape: readonly number[], data: Uint8Array, order: ArrayOrder = "C") {
    this.kind = kind;
    this.dtype = dtype;
    this.shape = shape;
    this.data = data;
    this.order = order;
  }

  /** An array of float32, the element type of ComfyUI's images and latents. */
  static float32(shape: readonly number[], data: Float32Array, kind: ArrayKind = "tensor"): NdArray {
    return new NdArray(kind, "float32", shape, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }

  /**
   * The elements as a typed array over the same memory, in `order`: no copy, and what is written there is written to this
   * array. A bool is a byte.
   *
   * @throws TypeError for types that JavaScript lacks (bfloat16, float8, complex numbers, structured types …); RangeError
   * where the elements lie where no typed array can begin.
   */
  typed(): TypedArray {
    return typedView(this.dtype, this.data);
  }

  /**
   * A copy of the elements as numbers.
   *
   * @throws TypeError where the elements are not float32.
   */
  toFloat32(): Float32Array {
    if (this.dtype !== "float32") throw new TypeError(`an array of ${String(this.dtype)} is not one of float32`);
    return new Float32Array(new Uint8Array(this.data).buffer);
  }
}

/** A value of a registered type (a datetime, an enum, a dataclass …): its stable name and its state. */
export class Named {
  readonly name: string;
  readonly state: unknown;

  constructor(name: string, state: unknown) {
    this.name = name;
    this.state = state;
  }
}

/** A value still encoded: carried from one call into another without being decoded, so that it keeps its exact type. */
export class RawValue {
  readonly bytes: Uint8Array;
  /** What the references in it stand for; missing where it holds none. */
  readonly references: RawReferences | undefined;
  /** The arrays that indexes in it stand for; missing where it came without. Keeps their memory. */
  readonly arrays: ArrayReceiver | undefined;

  constructor(bytes: Uint8Array, references?: RawReferences, arrays?: ArrayReceiver) {
    this.bytes = bytes;
    this.references = references;
    this.arrays = arrays;
  }

  /** A part of this value, by its bytes. */
  part(bytes: Uint8Array): RawValue {
    return new RawValue(bytes, this.references, this.arrays);
  }
}
