import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  bytesOfElement,
  denseStrides,
  gathered,
  inRowOrder,
  isOrder,
  spanOf,
} from "../../../src/transport/array-layout.ts";

describe("bytes of an element", () => {
  test.each<[unknown, number | undefined]>([
    ["bool", 1],
    ["bfloat16", 2],
    ["float8_e8m0fnu", 1],
    ["complex128", 16],
    ["<U5", 20],
    ["|S7", 7],
    [">f4", 4],
    ["<M8[ns]", 8],
    ["|V3", 3],
    [
      [
        ["x", "<f4"],
        ["y", "<i2", [2, 3]],
        ["", "|V2"],
      ],
      18,
    ],
    [
      [
        [
          "x",
          [
            ["a", "|u1"],
            ["b", "<f8"],
          ],
        ],
      ],
      9,
    ],
    ["float33", undefined],
    ["|O", undefined],
    [[["x", "what"]], undefined],
    [7, undefined],
    [null, undefined],
  ])("of type %p", (dtype, bytes) => {
    expect(bytesOfElement(dtype)).toBe(bytes);
  });
});

/** Every index of an array of this shape, the last axis fastest. */
function indexesOf(shape: readonly number[]): number[][] {
  return shape.reduce<number[][]>(
    (indexes, length) => indexes.flatMap((index) => Array.from({ length }, (_, position) => [...index, position])),
    [[]],
  );
}

const shapes = fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 });

test("what lies by strides is gathered element by element in the order C, whatever they are", () => {
  const cases = shapes.chain((shape) =>
    fc.record({
      shape: fc.constant(shape),
      strides: fc.tuple(...shape.map(() => fc.integer({ min: -20, max: 20 }))),
      bytes: fc.constantFrom(1, 2, 3, 8),
    }),
  );
  fc.assert(
    fc.property(cases, ({ shape, strides, bytes }) => {
      const [from, to] = spanOf(shape, strides, bytes);
      const memory = new Uint8Array(to - from).map((_, index) => index * 37 + 1);
      const expected = indexesOf(shape).flatMap((index) => {
        const at = index.reduce((sum, position, axis) => sum + position * (strides[axis] ?? 0), -from);
        return [...memory.subarray(at, at + bytes)];
      });
      expect([...gathered(memory, -from, shape, strides, bytes)]).toEqual(expected);
    }),
  );
});

test("the strides of an order put each element where the order says", () => {
  const cases = shapes.chain((shape) =>
    fc.record({
      shape: fc.constant(shape),
      order: fc.shuffledSubarray([...shape.keys()], { minLength: shape.length }),
    }),
  );
  fc.assert(
    fc.property(cases, ({ shape, order }) => {
      expect(isOrder(order, shape.length)).toBe(true);
      const strides = denseStrides(shape, order, 2);
      // In the order of the axes, the elements follow one another.
      const places = indexesOf(order.map((axis) => shape[axis] ?? 0)).map((index) =>
        index.reduce((sum, position, at) => sum + position * (strides[order[at] ?? 0] ?? 0), 0),
      );
      expect(places).toEqual(places.map((_, index) => 2 * index));
    }),
  );
  expect(denseStrides([2, 3], "C", 4)).toEqual([12, 4]);
  expect(denseStrides([2, 3], "F", 4)).toEqual([4, 8]);
});

test("an array in the order F, or of its axes, is the same array in the order C", () => {
  const data = Uint8Array.of(0, 3, 1, 4, 2, 5);
  for (const order of ["F", [1, 0]] as const) {
    expect([...inRowOrder({ dtype: "uint8", shape: [2, 3], order, data }).data]).toEqual([0, 1, 2, 3, 4, 5]);
  }
  expect(inRowOrder({ dtype: "uint8", shape: [2, 3], order: "C", data }).data).toBe(data);
});
