import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { bodyWithTable, splitBody } from "../../../src/transport/array-body.ts";
import {
  type ArrayEntry,
  type ArrayReceiver,
  type ArraySender,
  ArrayTable,
  arrayOf,
} from "../../../src/transport/array-table.ts";
import { decode, decodeRaw, encode, encodeParts } from "../../../src/transport/codec.ts";
import { rawElements } from "../../../src/transport/scan.ts";
import { pageBytes } from "../../../src/transport/segment-file.ts";
import { NdArray, RawValue, Tuple } from "../../../src/transport/values.ts";
import { joined } from "../../support/bytes.ts";
import { bytesOfHex, type Description, type Hex, valueFrom, vectors } from "../../support/descriptions.ts";
import { thrownBy } from "../../support/errors.ts";

interface BodyCase {
  readonly name: string;
  readonly blocks: readonly Hex[];
  readonly hex: Hex;
  readonly value: Description;
}

const { bodies, invalid } = await vectors<{ bodies: BodyCase[]; invalid: Omit<BodyCase, "value">[] }>("arrays");

/** Blocks are whole pages: what a vector gives, and zeros. */
function blocksOf({ blocks }: Pick<BodyCase, "blocks">): Uint8Array[] {
  return blocks.map((hex) => {
    const bytes = bytesOfHex(hex);
    const block = new Uint8Array(Math.max(1, Math.ceil(bytes.byteLength / pageBytes)) * pageBytes);
    block.set(bytes);
    return block;
  });
}

function receiverOf(table: ArrayTable, blocks: readonly Uint8Array[]): ArrayReceiver {
  return { at: (index) => arrayOf(table.entry(index), (attachment) => blocks[attachment] ?? expect.unreachable()) };
}

function read(body: Uint8Array, blocks: readonly Uint8Array[]): unknown {
  const { table, value } = splitBody(
    body,
    blocks.map(({ byteLength }) => byteLength),
  );
  return decode(value, undefined, receiverOf(table, blocks));
}

describe("a body with a table of arrays", () => {
  test.each(bodies.map((vector) => [vector.name, vector] as const))("%s", (_, vector) => {
    expect(plain(read(bytesOfHex(vector.hex), blocksOf(vector)))).toStrictEqual(
      plain(valueFrom(vector.value, "decoded")),
    );
  });

  test.each(invalid.map((vector) => [vector.name, vector] as const))("%s is refused", (_, vector) => {
    expect(thrownBy(() => read(bytesOfHex(vector.hex), blocksOf(vector))).code).toBe("value_invalid");
  });

  test("what lies dense in a block is not copied, and what does not is", () => {
    const block = new Uint8Array(pageBytes);
    const at = (strides: number[] | undefined) => ({ attachment: 0, offset: 8, strides });
    const entry = { kind: "ndarray", dtype: "uint8", shape: [2, 2], order: "F" } as const;
    const dense = arrayOf({ ...entry, data: at(undefined) }, () => block) as NdArray;
    expect([dense.data.buffer, dense.data.byteOffset, dense.order]).toEqual([block.buffer, 8, "F"]);
    const gathered = arrayOf({ ...entry, data: at([8, 1]) }, () => block) as NdArray;
    expect([gathered.data.buffer === block.buffer, gathered.order]).toEqual([false, "C"]);
  });

  test("an array larger than an ArrayBuffer is an error of its own, not a fault in the value", () => {
    const entry: ArrayEntry = {
      kind: "tensor",
      dtype: "uint8",
      shape: [2 ** 33],
      order: "C",
      data: { attachment: 0, offset: 0, strides: undefined },
    };
    const table = new ArrayTable([["tensor", "uint8", [2 ** 33], "C", [0, 0, null]]], [2 ** 33]);
    expect(table.entry(0)).toEqual(entry);
    expect(thrownBy(() => arrayOf(table.entry(0), () => expect.unreachable())).code).toBe("limit_exceeded");
  });

  test("an index means nothing without a table", () => {
    expect(thrownBy(() => decode(bytesOfHex("d40500"))).code).toBe("value_invalid");
  });
});

/** A view and a copy of the same bytes are the same here. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return { bytes: Buffer.from(value).toString("hex") };
  if (value instanceof NdArray) return { ...value, data: plain(value.data) };
  if (value instanceof Tuple) return { tuple: [...value].map(plain) };
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
}

/** Takes every array into a table, inline. */
class InlineTable implements ArraySender {
  readonly entries: ArrayEntry[] = [];

  add(value: NdArray | Uint8Array): number {
    const bytes = { kind: "bytes", dtype: null, order: "C" } as const;
    this.entries.push(value instanceof NdArray ? { ...value } : { ...bytes, shape: [value.byteLength], data: value });
    return this.entries.length - 1;
  }

  forward(arrays: ArrayReceiver, index: number): number {
    return this.add(arrays.at(index));
  }
}

function written(value: unknown): Uint8Array {
  const table = new InlineTable();
  const parts = encodeParts(value, undefined, table);
  return joined(bodyWithTable(table.entries, parts));
}

function held(value: unknown): RawValue {
  const { table, value: bytes } = splitBody(written(value), []);
  return new RawValue(bytes, undefined, receiverOf(table, []));
}

describe("arrays of a message", () => {
  const latent = new NdArray("tensor", "bfloat16", [1, 2, 2], new Uint8Array(8).fill(3), [0, 2, 1]);
  const blob = new Uint8Array(70_000).fill(9);

  test("are written as indexes, wherever they stand", () => {
    const value = { out: Tuple.of<unknown>(latent, 1, [blob]), again: latent };
    expect(plain(read(written(value), [])) as unknown).toEqual(plain(value));
  });

  test("are found by their indexes in each part of a value that stays encoded", () => {
    const parts = rawElements(held([blob, latent, 3]));
    const expected: unknown[] = [plain(blob), plain(latent), 3];
    expect(parts.map((part) => plain(decodeRaw(part)))).toEqual(expected);
  });

  test("get new indexes where encoded values of several messages are put together", () => {
    const [first, second] = [held([latent, 1]), held({ data: blob, list: Tuple.of(latent) })];
    const value = [first, { image: second, more: blob }];
    expect(plain(read(written(value), []))).toEqual(
      plain([[latent, 1], { image: { data: blob, list: Tuple.of(latent) }, more: blob }]),
    );
  });

  test("and all around them cross in any value, decoded and written anew, or passed on encoded", () => {
    const array = fc
      .record({
        shape: fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 3 }),
        fill: fc.integer({ min: 0, max: 255 }),
      })
      .chain(({ shape, fill }) =>
        fc.shuffledSubarray([...shape.keys()], { minLength: shape.length }).map((order) => {
          const bytes = 4 * shape.reduce((product, length) => product * length, 1);
          return new NdArray("tensor", "float32", shape, new Uint8Array(bytes).fill(fill), order);
        }),
      );
    const { value } = fc.letrec<{ value: unknown }>((tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        array,
        fc.uint8Array({ maxLength: 5 }),
        fc.integer(),
        fc.array(tie("value"), { maxLength: 3 }),
        fc.array(tie("value"), { maxLength: 3 }).map((items) => Tuple.from(items)),
        fc.dictionary(fc.constantFrom("a", "b"), tie("value"), { maxKeys: 2, noNullPrototype: true }),
      ),
    }));
    fc.assert(
      fc.property(value, value, (one, other) => {
        expect(plain(read(written(one), []))).toEqual(plain(one));
        const together = [held(one), { other: held(other), again: one }];
        expect(plain(read(written(together), []))).toEqual(plain([one, { other, again: one }]));
      }),
    );
  });

  test("stand for themselves where the message can have no table, in an order that every reader knows", () => {
    const bytes = joined(encodeParts([held([latent, blob])]));
    const [[array, data]] = decode(bytes) as [[NdArray, Uint8Array]];
    expect([array.order, array.dtype, Buffer.compare(data, blob)]).toEqual(["C", "bfloat16", 0]);
    const numbered = new NdArray("tensor", "uint8", [1, 2, 3], Uint8Array.of(0, 3, 1, 4, 2, 5), [0, 2, 1]);
    expect((decode(encode(numbered)) as NdArray).data).toEqual(Uint8Array.of(0, 1, 2, 3, 4, 5));
  });
});

describe("a typed array", () => {
  test.each([
    ["uint8", Uint8Array],
    ["bool", Uint8Array],
    ["int16", Int16Array],
    ["int64", BigInt64Array],
    ["float16", Float16Array],
    ["float32", Float32Array],
    ["float64", Float64Array],
  ])("of %s lies over the array's own memory", (dtype, View) => {
    const data = new Uint8Array(32).subarray(16);
    const view = new NdArray("tensor", dtype, [16 / View.BYTES_PER_ELEMENT], data).typed();
    expect(view).toBeInstanceOf(View);
    expect([view.buffer, view.byteOffset, view.byteLength]).toEqual([data.buffer, 16, 16]);
    new Uint8Array(view.buffer)[16] = 7;
    expect(data[0]).toBe(7);
  });

  test.each(["bfloat16", "float8_e5m2", "complex64", "<U5", [["x", "<f4"]]])(
    "of %p is refused by name: JavaScript has none",
    (dtype) => {
      const array = new NdArray("tensor", dtype, [0], new Uint8Array(0));
      expect(() => array.typed()).toThrow(JSON.stringify(dtype));
    },
  );

  test("that could not begin where the elements do is refused", () => {
    const data = new Uint8Array(17).subarray(1);
    const array = new NdArray("tensor", "float32", [4], data);
    expect(() => array.typed()).toThrow("begin at byte 1");
    expect(new NdArray("tensor", "float32", [4], data.slice()).typed().length).toBe(4);
  });
});
