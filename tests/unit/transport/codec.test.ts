import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decode, encode, encodeParts } from "../../../src/transport/codec.ts";
import { Complex, Float, FrozenSet, Named, NdArray, RawValue, Tuple } from "../../../src/transport/values.ts";
import { bytesOf, hexOf, joined } from "../../support/bytes.ts";
import { thrownBy } from "../../support/errors.ts";
import { anyValue, asDecoded } from "../../support/values.ts";

const good = { image: new NdArray("tensor", "float32", [1, 1], new Uint8Array(4)), names: Tuple.of<unknown>("a", 1n) };

/** `depth` containers, one inside the other, around nil. */
function nested(depth: number, wrap: (inner: Uint8Array) => Uint8Array): Uint8Array {
  let bytes: Uint8Array = Uint8Array.of(0xc0);
  for (let level = 0; level < depth; level++) bytes = wrap(bytes);
  return bytes;
}

function extension(code: number, payload: Uint8Array): Uint8Array {
  const { byteLength } = payload;
  return joined([
    Uint8Array.of(0xc9, byteLength >>> 24, byteLength >>> 16, byteLength >>> 8, byteLength, code),
    payload,
  ]);
}

describe("a value", () => {
  test("keeps its type on its way there and back", () => {
    fc.assert(
      fc.property(anyValue, (value) => {
        expect(decode(encode(value))).toStrictEqual(asDecoded(value));
      }),
      { numRuns: 500 },
    );
  });

  test("is encoded the same again after it was decoded, unless it held whole floats", () => {
    fc.assert(
      fc.property(anyValue, (value) => {
        const once = encode(asDecoded(value));
        expect(hexOf(encode(decode(once)))).toBe(hexOf(encode(asDecoded(decode(once)))));
      }),
    );
  });

  test("stays as it was when others are encoded and decoded after it", () => {
    const values = Array.from({ length: 500 }, (_, index) => ({ index, of: [Tuple.of(new Uint8Array(index * 7))] }));
    const encoded = values.map((value) => encode(value));
    for (const [index, bytes] of encoded.entries()) expect(decode(bytes)).toEqual(values[index]);
  });

  test("is decoded from a Buffer into bytes whose slice is a copy", () => {
    const decoded = decode(Buffer.from(encode([Uint8Array.of(1, 2)]))) as [Uint8Array];
    expect(decoded[0].constructor).toBe(Uint8Array);
  });

  test.each([
    ["a small int", 5, "05"],
    ["an int beyond 32 bits", 2 ** 40, "d30000010000000000"],
    ["a float that is whole", new Float(8), "cb4020000000000000"],
    ["minus zero, which only a float can be", -0, "cb8000000000000000"],
    ["undefined", undefined, "c0"],
    ["a field that is undefined", { a: undefined, b: 1 }, "81a16201"],
    ["an element that is undefined", [undefined], "91c0"],
    ["a hole in an array", new Array(1), "91c0"],
    ["a Date", new Date(0), hexOf(encode(new Named("datetime", "1970-01-01T00:00:00.000+00:00")))],
    ["a Buffer", Buffer.from([1, 2]), "c4020102"],
    ["an object without a prototype", Object.assign(Object.create(null), { a: 1 }), "81a16101"],
  ])("is sent with the right type: %s", (_, value, hex) => {
    expect(hexOf(encode(value))).toBe(hex);
  });

  test("with a __proto__ key is a Map, so that nobody's prototype changes", () => {
    const decoded = decode(encode(new Map([["__proto__", { polluted: true }]])));
    expect(decoded).toEqual(new Map([["__proto__", { polluted: true }]]));
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
  });

  test("of keys such as constructor is a plain object that owns them", () => {
    const decoded = decode(encode({ constructor: 1, toString: 2 })) as object;
    expect(Object.keys(decoded)).toEqual(["constructor", "toString"]);
  });

  class Canvas {}
  const cycle: unknown[] = [];
  cycle.push([cycle]);
  const loop: Record<string, unknown> = {};
  loop["self"] = { loop };

  test.each<[string, unknown, string]>([
    ["a function", { run: () => 1 }, "value.run is a function"],
    ["a symbol", [Symbol("x")], "value[0] is a symbol"],
    ["an instance of a class", { a: [1, new Canvas()] }, "value.a[1] is a Canvas"],
    ["a typed array", { data: new Float32Array(2) }, "value.data is a Float32Array"],
    ["a promise", Tuple.of(Promise.resolve()), "value[0] is a Promise"],
    ["a class instance in a Map", new Map([["k", new Canvas()]]), "value[k] is a Canvas"],
    ["a class instance as a key", new Map([[new Canvas(), 1]]), "value key is a Canvas"],
    ["a class instance in a Set", new Set([new Canvas()]), "value[0] is a Canvas"],
    ["a class instance as a state", new Named("x", new Canvas()), "value.state is a Canvas"],
    [
      "a raw value where nothing is spliced",
      new Map([["k", new RawValue(Uint8Array.of(1))]]),
      "value[k] is a RawValue",
    ],
    [
      "an array of a negative length",
      { a: new NdArray("tensor", "uint8", [-1], new Uint8Array()) },
      "value.a has the shape",
    ],
    ["a Date of no time", [new Date(Number.NaN)], "value[0] is a Date"],
    ["half of a surrogate pair", { a: "\ud800" }, "value.a is a string with half"],
    ["half of a surrogate pair as a key", { "\udc00": 1 }, "value key is a string with half"],
    ["an array that contains itself", cycle, "contains itself"],
    ["an object that contains itself", { loop }, "value.loop.self.loop.self"],
  ])("that cannot cross is refused by its path: %s", (_, value, words) => {
    for (const encoding of [() => encode(value), () => encodeParts(value)]) {
      const error = thrownBy(encoding);
      expect(error.code).toBe("value_unsupported");
      expect(error.message).toContain(words);
    }
    expect(decode(encode(good))).toEqual(asDecoded(good));
  });

  test("may be nested as deep in one direction as in the other", () => {
    const wraps: [string, (inner: unknown) => unknown][] = [
      ["list", (inner) => [inner]],
      ["dict", (inner) => ({ inner })],
      ["map", (inner) => new Map([[1, inner]])],
      ["tuple", (inner) => Tuple.of(inner)],
      ["named", (inner) => new Named("n", inner)],
      ["set", (inner) => new Set([inner])],
      ["array", (inner) => new NdArray("ndarray", inner, [1], new Uint8Array())],
    ];
    for (const [name, wrap] of wraps) {
      let value: unknown = null;
      let deepest = 0;
      for (let depth = 1; depth < 140; depth++) {
        value = wrap(value);
        let bytes: Uint8Array;
        try {
          bytes = encode(value);
        } catch {
          break;
        }
        expect(() => decode(bytes)).not.toThrow();
        deepest = depth;
      }
      // An extension is one level, and the array in it another.
      expect([name, deepest]).toEqual([
        name,
        name === "array" ? 63 : name === "list" || name === "dict" || name === "map" ? 128 : 64,
      ]);
    }
  });
});

describe("hostile bytes", () => {
  /** Decodes, or fails with value_invalid; anything else fails the test. */
  function withstand(bytes: Uint8Array): void {
    try {
      decode(bytes);
    } catch (error) {
      expect(thrownBy(() => raise(error)).code).toBe("value_invalid");
    }
  }

  function raise(error: unknown): never {
    throw error;
  }

  test("that are random are refused, or are a value", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        withstand(bytes);
        expect(decode(encode(good))).toEqual(asDecoded(good));
      }),
      { numRuns: 2000 },
    );
  });

  test("that were a value before they were changed are refused, or are a value", () => {
    const changes = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(anyValue, changes, fc.nat(), (value, edits, length) => {
        const bytes = encode(value);
        for (const [at, byte] of edits) bytes[at % bytes.byteLength] = byte;
        withstand(bytes);
        withstand(bytes.subarray(0, length % bytes.byteLength));
        expect(decode(encode(good))).toEqual(asDecoded(good));
      }),
      { numRuns: 1000 },
    );
  });

  test.each<[string, (inner: Uint8Array) => Uint8Array]>([
    ["arrays", (inner) => joined([Uint8Array.of(0x91), inner])],
    ["maps", (inner) => joined([Uint8Array.of(0x81, 0x01), inner])],
    ["maps as keys", (inner) => joined([Uint8Array.of(0x81), inner, Uint8Array.of(0x01)])],
    ["tuples", (inner) => extension(1, joined([Uint8Array.of(0x91), inner]))],
    ["named values", (inner) => extension(6, joined([Uint8Array.of(0x92, 0xa1, 0x61), inner]))],
    ["extensions in extensions", (inner) => extension(1, inner)],
  ])("that nest too deep are refused: %s", (_, wrap) => {
    expect(thrownBy(() => decode(nested(1000, wrap))).code).toBe("value_invalid");
    expect(thrownBy(() => decode(nested(129, wrap))).message).toContain("too deep");
  });

  test("that nest a hundred thousand arrays are refused before the stack ends", () => {
    expect(thrownBy(() => decode(new Uint8Array(100_000).fill(0x91))).message).toContain("too deep");
  });

  test.each(["dbffffffff", "c6ffffffff", "ddffffffff", "dfffffffff", "c9ffffffff01", "ddffffffff01", "dfffffffff0101"])(
    "that announce 4 GiB are refused without room being made for them: %s",
    (hex) => {
      const before = process.memoryUsage().rss;
      expect(thrownBy(() => decode(bytesOf(hex))).code).toBe("value_invalid");
      expect(process.memoryUsage().rss - before).toBeLessThan(256 * 1024 * 1024);
    },
  );

  const known = new Set([1, 2, 3, 4, 5, 6, 7, 0x42]);
  test("with an extension that is not of the wire are refused, those that msgpackr has built in included", () => {
    for (let code = 0; code < 256; code++) {
      if (known.has(code)) continue;
      for (const payload of [Uint8Array.of(0x90), bytesOf("92a161a0"), new Uint8Array(12), bytesOf("000000019161")]) {
        const error = thrownBy(() => decode(joined([Uint8Array.of(0x91), extension(code, payload)])));
        expect(error.message).toBe(`unknown extension ${code}`);
      }
      expect(thrownBy(() => decode(Uint8Array.of(0xd4, code, 0))).code).toBe("value_invalid");
    }
  });

  test.each([
    ["text that is not UTF-8", "a1ff"],
    ["text with an encoded surrogate", "a3eda080"],
    ["long text that is not UTF-8", `d928${"61".repeat(39)}ff`],
    ["a tuple of a map", "d40180"],
    ["a set of a number", "d40205"],
    ["a complex number of one byte", "d40400"],
    ["an array without data", hexOf(extension(5, encode(["tensor", "float32", [1], "C"])))],
    ["an array of a kind unknown", hexOf(extension(5, encode(["other", "float32", [1], "C", new Uint8Array(4)])))],
    ["an array of half an element", hexOf(extension(5, encode(["tensor", "uint8", [0.5], "C", new Uint8Array(4)])))],
    ["an array with a part too many", hexOf(extension(5, encode(["tensor", "uint8", [0], "C", new Uint8Array(), 1])))],
    ["a named value without a state", hexOf(extension(6, encode(["name"])))],
    ["a named value with a part too many", hexOf(extension(6, encode(["name", 1, 2])))],
    ["a named value without a name", hexOf(extension(6, encode([1, 2])))],
    ["nothing at all", ""],
    ["two values", "0102"],
  ])("that make no sense are refused: %s", (_, hex) => {
    expect(thrownBy(() => decode(bytesOf(hex))).code).toBe("value_invalid");
  });
});

describe("a raw value", () => {
  test("is spliced as if it had been decoded and encoded again", () => {
    fc.assert(
      fc.property(anyValue, anyValue, (first, second) => {
        const [one, two] = [asDecoded(first), asDecoded(second)];
        const raw = new RawValue(encode(one));
        const parts = encodeParts(["run", [raw, two], { image: raw, none: undefined, nested: [{ raw, two }] }]);
        const whole = encode(["run", [one, two], { image: one, nested: [{ raw: one, two }] }]);
        expect(hexOf(joined(parts))).toBe(hexOf(whole));
      }),
    );
  });

  test("is passed on untouched", () => {
    const bytes = encode(new Float(8));
    expect(encodeParts(new RawValue(bytes))[0]).toBe(bytes);
  });

  test("needs the long form of a head beside fifteen others", () => {
    const many = Array.from({ length: 300 }, () => new RawValue(Uint8Array.of(1)));
    const fields = Object.fromEntries(many.map((raw, index) => [`k${index}`, raw]));
    expect(decode(joined(encodeParts(many)))).toEqual(new Array(300).fill(1));
    expect(Object.keys(decode(joined(encodeParts(fields))) as object)).toHaveLength(300);
  });

  test.each([
    ["too short", "9201"],
    ["too long", "0101"],
    ["empty", ""],
    ["of an unknown extension", "d47800"],
  ])("that is %s does not reach the values after it", (_, hex) => {
    const splice = () => encodeParts(["run", [new RawValue(bytesOf(hex))], { trusted: true }]);
    expect(thrownBy(splice).code).toBe("value_invalid");
  });

  test("beside what cannot cross is named by the whole path", () => {
    const splice = () => encodeParts(["run", [], { image: new RawValue(Uint8Array.of(1)), mode: [() => 1] }]);
    expect(thrownBy(splice).message).toContain("value[2].mode[0] is a function");
  });
});

test("a tuple that is mapped is a list", () => {
  const mapped = Tuple.of(1, 2).map((item) => item * 2);
  expect(mapped instanceof Tuple).toBe(false);
  expect(mapped).toEqual([2, 4]);
});

test("a tuple of one number holds it, rather than being that long", () => {
  expect([...Tuple.of(3)]).toEqual([3]);
  expect(Tuple.from([5])).toHaveLength(1);
});

test("an array gives its floats wherever its bytes lie", () => {
  const floats = Float32Array.of(1, 2.5);
  const crossed = decode(encode(["pad", NdArray.float32([2], floats)])) as [string, NdArray];
  expect([...crossed[1].toFloat32()]).toEqual([1, 2.5]);
  expect(() => new NdArray("tensor", "uint8", [1], new Uint8Array(1)).toFloat32()).toThrow(TypeError);
});

test("sets and complex numbers keep their class", () => {
  expect(decode(encode(new FrozenSet([1])))).toBeInstanceOf(FrozenSet);
  expect(decode(encode(new Set([1])))).not.toBeInstanceOf(FrozenSet);
  expect(decode(encode(new Complex(1, -2)))).toEqual(new Complex(1, -2));
});
