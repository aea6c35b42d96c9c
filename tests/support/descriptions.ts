/** Values as tests/vectors/README.md describes them, and the files that do. */
import { join } from "node:path";
import { Reference, type ReferenceKind } from "../../src/transport/references.ts";
import {
  type ArrayKind,
  type ArrayOrder,
  Complex,
  Float,
  FrozenSet,
  Named,
  NdArray,
  Tuple,
} from "../../src/transport/values.ts";
import { bytesOf } from "./bytes.ts";

/** Hex, or pieces of hex that repeat. */
export type Hex = string | readonly (readonly [string, number])[];

/** A value as tests/vectors/README.md describes it. */
export type Description =
  | null
  | boolean
  | string
  | { readonly int: string }
  | { readonly float: string }
  | { readonly bytes: Hex }
  | { readonly list: readonly Description[] }
  | { readonly tuple: readonly Description[] }
  | { readonly set: readonly Description[] }
  | { readonly frozenset: readonly Description[] }
  | { readonly dict: readonly (readonly [Description, Description])[] }
  | { readonly complex: readonly [string, string] }
  | { readonly array: ArrayDescription }
  | { readonly named: { readonly name: string; readonly state: Description } }
  | { readonly reference: { readonly id: string; readonly kind?: ReferenceKind; readonly type?: string } }
  | { readonly repeat: readonly [string, number] };

interface ArrayDescription {
  readonly kind: ArrayKind;
  readonly dtype: Description;
  readonly shape: readonly number[];
  readonly order: ArrayOrder;
  readonly data: Hex;
}

export async function vectors<T>(name: string): Promise<T> {
  return (await Bun.file(join(import.meta.dir, "..", "vectors", `${name}.json`)).json()) as T;
}

export function bytesOfHex(hex: Hex): Uint8Array {
  return bytesOf(typeof hex === "string" ? hex : hex.map(([piece, count]) => piece.repeat(count)).join(""));
}

function numberOf(text: string): number {
  const infinite: Record<string, number> = { nan: Number.NaN, inf: Infinity, "-inf": -Infinity };
  return infinite[text] ?? Number(text);
}

/** The value that a description stands for: as it is sent, or as it is where it was decoded. */
export function valueFrom(description: Description, side: "sent" | "decoded"): unknown {
  const inner = (item: Description) => valueFrom(item, side);
  if (description === null || typeof description !== "object") return description;
  if ("int" in description) {
    const whole = BigInt(description.int);
    return Number.isSafeInteger(Number(whole)) ? Number(whole) : whole;
  }
  if ("float" in description) {
    const value = numberOf(description.float);
    return side === "sent" ? new Float(value) : value;
  }
  if ("bytes" in description) return bytesOfHex(description.bytes);
  if ("list" in description) return description.list.map(inner);
  if ("tuple" in description) return Tuple.from(description.tuple.map(inner));
  if ("set" in description) return new Set(description.set.map(inner));
  if ("frozenset" in description) return new FrozenSet(description.frozenset.map(inner));
  if ("dict" in description) return dictionaryOf(description.dict.map(([key, item]) => [inner(key), inner(item)]));
  if ("complex" in description) return new Complex(numberOf(description.complex[0]), numberOf(description.complex[1]));
  if ("named" in description) return new Named(description.named.name, inner(description.named.state));
  if ("reference" in description) {
    const { id, kind, type = "" } = description.reference;
    return new Reference(Number(id), kind && { kind, type });
  }
  if ("repeat" in description)
    return Buffer.from(description.repeat[0].repeat(description.repeat[1]), "hex").toString("utf8");
  const { kind, dtype, shape, order, data } = description.array;
  return new NdArray(kind, inner(dtype), shape, bytesOfHex(data), order);
}

function dictionaryOf(entries: readonly [unknown, unknown][]): unknown {
  const plain = entries.every(([key]) => typeof key === "string" && key !== "__proto__");
  return plain ? Object.fromEntries(entries as [string, unknown][]) : new Map(entries);
}

/** The entries of a dict in their order, which an object whose keys look like numbers does not keep. */
export function sentValue(described: Description): unknown {
  if (described !== null && typeof described === "object" && "dict" in described) {
    return new Map(described.dict.map(([key, item]) => [valueFrom(key, "sent"), sentValue(item)]));
  }
  return valueFrom(described, "sent");
}
