/** Random values of every type that crosses the wire, and what each becomes where TypeScript decodes it. */
import fc from "fast-check";
import { Complex, Float, FrozenSet, Named, NdArray, Tuple } from "../../src/transport/values.ts";

const bytes = fc.uint8Array({ maxLength: 40 });
const text = fc.string({ unit: "grapheme", maxLength: 40 });
const key = fc.oneof(text, fc.constantFrom("__proto__", "constructor", "toString", "", "0", "10"));
const numbers = fc.oneof(
  fc.integer(),
  fc.maxSafeInteger(),
  fc.double(),
  fc.constantFrom(0, -0, 255, 256, 65_535, 65_536, 2 ** 31, -(2 ** 31), -(2 ** 31) - 1, 2 ** 32 - 1, 2 ** 32, 2 ** 53),
);
const bigints = fc.bigInt({ min: -(2n ** 200n), max: 2n ** 200n });
const hashable = fc.oneof(text, numbers, fc.boolean(), bigints);

/** A value that JavaScript has a type for, or one of the classes of `values.ts`; at most 4 containers deep. */
export const anyValue: fc.Arbitrary<unknown> = fc.letrec<{ value: unknown; array: NdArray }>((tie) => ({
  array: fc
    .record({
      kind: fc.constantFrom("tensor" as const, "ndarray" as const),
      dtype: fc.constantFrom<unknown>("float32", "<U5", [["x", "<f4"]]),
      shape: fc.array(fc.oneof(fc.nat(), fc.constant(2 ** 40)), { maxLength: 4 }),
      data: bytes,
      order: fc.constantFrom("C" as const, "F" as const),
    })
    .map(({ kind, dtype, shape, data, order }) => new NdArray(kind, dtype, shape, data, order)),
  value: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    fc.oneof(
      fc.constant(null),
      fc.boolean(),
      numbers,
      bigints,
      text,
      bytes,
      fc.tuple(fc.double(), fc.double()).map(([real, imag]) => new Complex(real, imag)),
      fc.double().map((value) => new Float(value)),
    ),
    tie("array"),
    fc.array(tie("value"), { maxLength: 18 }),
    fc.array(tie("value"), { maxLength: 4 }).map((items) => Tuple.from(items)),
    fc.array(hashable, { maxLength: 4 }).map((items) => new Set(items)),
    fc.array(hashable, { maxLength: 4 }).map((items) => new FrozenSet(items)),
    fc.tuple(text, tie("value")).map(([name, state]) => new Named(name, state)),
    fc.array(fc.tuple(key, tie("value")), { maxLength: 18 }).map((entries) => Object.fromEntries(entries)),
    fc.array(fc.tuple(hashable, tie("value")), { maxLength: 4 }).map((entries) => new Map(entries)),
  ),
})).value;

/**
 * What a sent value is where TypeScript decodes it: one form for each value of Python, whichever form it was sent in.
 */
export function asDecoded(value: unknown): unknown {
  if (value instanceof Float) return value.value;
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  if (value instanceof Tuple) return Tuple.from([...value].map(asDecoded));
  if (Array.isArray(value)) return value.map(asDecoded);
  if (value instanceof FrozenSet) return new FrozenSet([...value].map(asDecoded));
  if (value instanceof Set) return new Set([...value].map(asDecoded));
  if (value instanceof Named) return new Named(value.name, asDecoded(value.state));
  if (value instanceof Map) return dictionary([...value]);
  if (typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype) {
    return dictionary(Object.entries(value));
  }
  return value;
}

function dictionary(entries: readonly [unknown, unknown][]): unknown {
  const decoded = new Map(entries.map(([name, item]) => [asDecoded(name), asDecoded(item)]));
  const plain = [...decoded.keys()].every((name) => typeof name === "string" && name !== "__proto__");
  return plain ? Object.fromEntries(decoded as Map<string, unknown>) : decoded;
}
