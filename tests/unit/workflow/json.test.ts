import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { JsonError, jsonDepthMax, readJson } from "../../../src/workflow/json.ts";

function faultOf(text: string): JsonError {
  try {
    readJson(text);
  } catch (error) {
    if (error instanceof JsonError) return error;
    throw error;
  }
  throw new Error(`no fault in ${text}`);
}

describe("reading JSON", () => {
  test.each([
    ["18446744073709551615", 18446744073709551615n],
    ["-9007199254740993", -9007199254740993n],
    ["9007199254740991", 9007199254740991],
    ["1e400", Number.POSITIVE_INFINITY],
    ["1.0", 1],
    ["NaN", Number.NaN],
    ['{"is_changed": [NaN, -Infinity]}', { is_changed: [Number.NaN, Number.NEGATIVE_INFINITY] }],
    ["\uFEFF{}", {}],
    ['"caf\u00e9 \\u00e9 \\ud83d\\ude00 \u007f\u0085"', "caf\u00e9 \u00e9 \u{1f600} \u007f\u0085"],
    ['"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\/\b\f\n\r\t'],
  ])("%s", (text, value) => {
    expect(readJson(text)).toEqual(value);
  });

  test("a key that JavaScript gives a meaning is only a key", () => {
    const value = readJson('{"__proto__": {"polluted": 1}}');
    expect(Object.hasOwn(value as object, "__proto__")).toBe(true);
    expect(Reflect.get({}, "polluted")).toBeUndefined();
  });

  test("whatever JSON.stringify writes is read back", () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 6 }), fc.constantFrom(undefined, 2), (value, indent) => {
        const text = JSON.stringify(value, null, indent);
        const asNumber = (_: string, part: unknown) => (typeof part === "bigint" ? Number(part) : part);
        expect(JSON.stringify(readJson(text), asNumber)).toBe(JSON.stringify(JSON.parse(text)));
      }),
    );
  });
});

describe("a fault in JSON", () => {
  test.each([
    ["", 1, 1, "a value was expected, but the text ends"],
    ['{\n  "a": 1,\n}', 3, 1, 'a key in quotes was expected, not "}"'],
    ['{"a" 1}', 1, 6, '":" was expected after the key, not "1"'],
    ['{"a": 1 "b": 2}', 1, 9, '"," or "}" was expected, not "\\""'],
    ["[1 2]", 1, 4, '"," or "]" was expected, not "2"'],
    ["[1,\n x]", 2, 2, 'a value was expected, not "x"'],
    ['{"a": "b', 1, 7, "the string never ends"],
    ['"a\nb"', 1, 3, "a control character must be written as an escape"],
    ['"\\x"', 1, 3, "unknown escape in a string"],
    ['"\\u12g4"', 1, 4, "four hexadecimal digits were expected"],
    ["{} {}", 1, 4, "text after the end of the JSON value"],
    ["01", 1, 2, "text after the end of the JSON value"],
  ])("%j is at line %i, column %i", (text, line, column, message) => {
    const fault = faultOf(text);
    expect([fault.line, fault.column, fault.message]).toEqual([line, column, message]);
  });

  test("nesting ends at the limit", () => {
    const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
    expect(() => readJson(nested(jsonDepthMax))).not.toThrow();
    expect(faultOf(nested(jsonDepthMax + 1)).message).toBe(`nested deeper than ${jsonDepthMax} levels`);
  });
});
