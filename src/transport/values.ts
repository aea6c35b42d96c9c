/**
 * Python values that JavaScript has no type for. Each keeps what it needs to go back exactly as it came.
 *
 * What JavaScript has keeps its own type: numbers, bigint, strings, `Uint8Array` (bytes), `Array` (list), `Set` (set),
 * plain objects and `Map` (dict), `null` (None). The table is in PROTOCOL.md, "Values".
 */
import type { RawReferences } from "./references.ts";

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

/** A tensor or array: its elements as bytes, little-endian, in `order`. */
export class NdArray {
  readonly kind: ArrayKind;
  /** The element type by name (`float32`, `bfloat16` …), a numpy type string (`<U5`), or a structured description. */
  readonly dtype: unknown;
  readonly shape: readonly number[];
  /** `C`: last axis fastest, `F`: first axis fastest. */
  readonly order: "C" | "F";
  readonly data: Uint8Array;

  constructor(kind: ArrayKind, dtype: unknown, shape: readonly number[], data: Uint8Array, order: "C" | "F" = "C") {
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
   * The elements as numbers.
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

  constructor(bytes: Uint8Array, references?: RawReferences) {
    this.bytes = bytes;
    this.references = references;
  }
}
