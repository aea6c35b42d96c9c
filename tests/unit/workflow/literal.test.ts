import { describe, expect, test } from "bun:test";
import { Float } from "../../../src/transport/values.ts";
import { checkLiteral, readInputSpec } from "../../../src/workflow/literal.ts";

function check(value: unknown, entry: readonly unknown[], selfChecked = false) {
  return checkLiteral(value, readInputSpec(entry), { selfChecked });
}

describe("a value is converted as Python would", () => {
  test.each<[unknown, string, unknown]>([
    ["5", "INT", 5],
    [" -1_000 ", "INT", -1000],
    [5.7, "INT", 5],
    [-5.7, "INT", -5],
    [true, "INT", 1],
    [18446744073709551615n, "INT", 18446744073709551615n],
    ["18446744073709551615", "INT", 18446744073709551615n],
    [2, "FLOAT", new Float(2)],
    ["1e-3", "FLOAT", 0.001],
    ["1.", "FLOAT", new Float(1)],
    [".5", "FLOAT", 0.5],
    ["-inf", "FLOAT", Number.NEGATIVE_INFINITY],
    ["nan", "FLOAT", Number.NaN],
    [false, "FLOAT", new Float(0)],
    [10n ** 20n, "FLOAT", new Float(1e20)],
    [7, "STRING", "7"],
    [null, "STRING", "None"],
    [true, "STRING", "True"],
    ["false", "BOOLEAN", true],
    ["", "BOOLEAN", false],
    [0, "BOOLEAN", false],
    [null, "BOOLEAN", false],
    [{}, "BOOLEAN", false],
    [{ __value__: [1, 2] }, "LIST", [1, 2]],
    [{ __value__: "3" }, "INT", 3],
    ["text", "IMAGE", "text"],
    [{ x: 1 }, "*", { x: 1 }],
  ])("%p as %s", (given, type, value) => {
    expect(check(given, [type])).toEqual({ ok: true, value });
  });

  test.each<[unknown, string]>([
    ["5.5", "INT"],
    ["five", "INT"],
    ["1__0", "INT"],
    [null, "INT"],
    [{}, "INT"],
    [Number.NaN, "INT"],
    ["0x10", "FLOAT"],
    ["", "FLOAT"],
    [null, "FLOAT"],
    [10n ** 400n, "FLOAT"],
    [{ a: 1 }, "STRING"],
  ])("%p can't become %s", (given, type) => {
    expect(check(given, [type])).toMatchObject({ ok: false, message: expect.stringContaining(type) });
  });
});

describe("a value is checked", () => {
  const long = Array.from({ length: 30 }, (_, index) => `model-${index}`);

  test.each<[string, unknown, readonly unknown[], string]>([
    ["below", 0, ["INT", { min: 1, max: 9 }], "0 is below the minimum of 1"],
    ["above", "9.5", ["FLOAT", { max: 9 }], "9.5 is above the maximum of 9"],
    ["above 64 bits", 2n ** 64n, ["INT", { max: 2n ** 64n - 1n }], "18446744073709551616 is above the maximum"],
    ["combo", "euler2", [["euler", "heun"]], '"euler2" is not in the list; the values are "euler", "heun"'],
    ["long combo", "x", [long], "it is none of the 30 values"],
    ["empty combo", "x", [[]], "the list of its values is empty"],
    ["named combo", "x", ["COMBO", { options: ["a"] }], '"x" is not in the list'],
    ["multiple", { __value__: ["a", "z"] }, ["COMBO", { options: ["a"], multiselect: true }], '"z" is not in the list'],
    ["a list", [1, 2, 3], ["LIST"], "neither a value nor a link"],
    ["a link to a number", [1, 0], ["IMAGE"], "neither a value nor a link"],
  ])("%s", (_, given, entry, message) => {
    expect(check(given, entry)).toMatchObject({ ok: false, message: expect.stringContaining(message) });
  });

  test.each<[string, unknown, readonly unknown[]]>([
    ["the ends of a range", 1, ["INT", { min: 1, max: 1 }]],
    ["a combo's value", "heun", [["euler", "heun"]]],
    ["numbers compare by value, as in Python", true, [[1, 2]]],
    ["a combo that the front end fills", "x", ["COMBO", { remote: {}, options: [] }]],
    ["a combo without a list", "x", ["COMBO", {}]],
    ["options that aren't a dict", "x", ["STRING", 5]],
  ])("%s passes", (_, given, entry) => {
    expect(check(given, entry).ok).toBe(true);
  });

  test("a near value is suggested", () => {
    expect(check("eular", [["euler", "heun"]])).toMatchObject({ hint: 'did you mean "euler"?' });
  });

  test("an input that the class checks by itself isn't bound, but is converted", () => {
    expect(check("12", ["INT", { max: 9 }], true)).toEqual({ ok: true, value: 12 });
    expect(check("new.png", [["old.png"]], true)).toEqual({ ok: true, value: "new.png" });
  });
});
