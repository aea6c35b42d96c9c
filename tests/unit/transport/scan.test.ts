import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decode, encode } from "../../../src/transport/codec.ts";
import { checkValue, rawElements, rawKind, skipValue } from "../../../src/transport/scan.ts";
import { Complex, FrozenSet, NdArray, RawValue, Tuple } from "../../../src/transport/values.ts";
import { bytesOf, joined } from "../../support/bytes.ts";
import { thrownBy } from "../../support/errors.ts";
import { anyValue, asDecoded } from "../../support/values.ts";

const raw = (value: unknown) => new RawValue(encode(value));

test("a value ends where its encoding does, wherever it starts", () => {
  fc.assert(
    fc.property(anyValue, fc.uint8Array({ maxLength: 5 }), fc.uint8Array({ maxLength: 5 }), (value, before, after) => {
      const bytes = encode(value);
      const around = joined([before, bytes, after]);
      expect(skipValue(around, before.byteLength, 128)).toBe(before.byteLength + bytes.byteLength);
    }),
  );
});

test("a value that is cut off anywhere is refused", () => {
  fc.assert(
    fc.property(anyValue, (value) => {
      const bytes = encode(value);
      for (let end = 0; end < Math.min(bytes.byteLength, 300); end++) {
        expect(thrownBy(() => checkValue(bytes.subarray(0, end), 128)).code).toBe("value_invalid");
      }
    }),
  );
});

test.each([
  [0, "00", true],
  [0, "90", true],
  [0, "9100", false],
  [1, "9100", true],
  [1, "919100", false],
  [1, "d40190", true],
  [1, "d5019100", false],
  [2, "d5019100", true],
  [0, "d40190", false],
])("within a depth of %p, %p passes: %p", (depthMax, hex, passes) => {
  const check = () => checkValue(bytesOf(hex), depthMax);
  if (passes) expect(check).not.toThrow();
  else expect(thrownBy(check).message).toContain("too deep");
});

describe("a raw value", () => {
  test.each([
    [[], "list"],
    [new Array(20).fill(0), "list"],
    [new Array(70_000).fill(0), "list"],
    [Tuple.of(), "tuple"],
    [Tuple.of(1, 2), "tuple"],
    [{}, "map"],
    [new Map([[1, 2]]), "map"],
    [Object.fromEntries(Array.from({ length: 20 }, (_, index) => [`k${index}`, index])), "map"],
    [null, "other"],
    ["text", "other"],
    [7, "other"],
    [new Uint8Array(3), "other"],
    [new FrozenSet([1]), "other"],
    [new Complex(1, 2), "other"],
    [new NdArray("tensor", "uint8", [1], new Uint8Array(1)), "other"],
  ] as const)("tells what it is, case %#", (value, kind) => {
    expect(rawKind(raw(value))).toBe(kind);
  });

  test("gives the elements of a list or a tuple, each still encoded", () => {
    fc.assert(
      fc.property(fc.array(anyValue, { maxLength: 20 }), (items) => {
        for (const container of [items, Tuple.from(items)]) {
          const elements = rawElements(raw(container), 128).map(({ bytes }) => decode(bytes));
          expect(elements).toStrictEqual(items.map(asDecoded));
        }
      }),
    );
  });

  test("gives the keys and values of a map in turn", () => {
    const elements = rawElements(raw({ a: 1, b: [2] }), 128).map(({ bytes }) => decode(bytes));
    expect(elements).toEqual(["a", 1, "b", [2]]);
  });

  test("has no elements where it is no container", () => {
    for (const value of [null, 5, "text", new Uint8Array(2), new Set([1])])
      expect(rawElements(raw(value), 128)).toEqual([]);
  });

  test.each([
    ["a list that is cut off", "9201"],
    ["a tuple that holds no list", "d40105"],
    ["a tuple that holds a map", "d40180"],
    ["a tuple of nothing", "c70001"],
    ["no bytes at all", ""],
  ])("that is malformed is refused: %s", (_, hex) => {
    expect(thrownBy(() => rawElements(new RawValue(bytesOf(hex)), 128)).code).toBe("value_invalid");
  });

  test("that nests tuples in tuples for ever is refused, without a stack that ends", () => {
    let bytes: Uint8Array = Uint8Array.of(0x90);
    for (let depth = 0; depth < 2000; depth++) {
      const { byteLength } = bytes;
      bytes = joined([Uint8Array.of(0xc8, byteLength >>> 8, byteLength, 1), bytes]);
    }
    expect(thrownBy(() => rawKind(new RawValue(bytes))).code).toBe("value_invalid");
  });
});
