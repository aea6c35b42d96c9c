import { describe, expect, test } from "bun:test";
import { planCalls } from "../../../src/workflow/call-inputs.ts";
import { mergeAnswers } from "../../../src/workflow/node-result.ts";
import { defineNode, failureOf, type MemoryNode } from "./packs.ts";

describe("the calls of a node", () => {
  const lists = (of: Record<string, unknown[]>) => new Map(Object.entries(of));

  test.each<[string, Record<string, unknown[]>, Record<string, unknown>[]]>([
    ["no input", {}, [{}]],
    ["one value each", { a: [1], b: [2] }, [{ a: 1, b: 2 }]],
    [
      "the last value repeats",
      { a: [1, 2, 3], b: [7, 8], c: [9] },
      [
        { a: 1, b: 7, c: 9 },
        { a: 2, b: 8, c: 9 },
        { a: 3, b: 8, c: 9 },
      ],
    ],
    ["only empty lists", { a: [], b: [] }, [{}]],
  ])("%s", (_, given, calls) => {
    expect(planCalls(lists(given), false)).toEqual(calls);
  });

  test("a node that takes lists is called once with all of them", () => {
    expect(planCalls(lists({ a: [1, 2], b: [], c: [3] }), true)).toEqual([{ a: [1, 2], b: [], c: [3] }]);
  });

  test("an empty list beside others has no value to repeat", async () => {
    const failure = await failureOf(() => planCalls(lists({ images: [], radius: [3] }), false));
    expect(failure.code).toBe("workflow_invalid");
    expect(failure.message).toContain('input "images" is linked to an output that is an empty list');
  });
});

describe("the answers of a node", () => {
  const merge = (answers: unknown[], node: MemoryNode) => mergeAnswers(answers, defineNode("N", node));
  const two = { outputTypes: ["INT", "INT"] };
  const listed = { outputTypes: ["INT", "INT"], outputIsList: [true, false] };

  test.each<[string, unknown[], MemoryNode, unknown]>([
    ["a tuple", [[1, 2]], two, { outputs: [[1], [2]] }],
    [
      "one list each over the calls",
      [
        [1, 2],
        [3, 4],
      ],
      two,
      {
        outputs: [
          [1, 3],
          [2, 4],
        ],
      },
    ],
    [
      "lists are concatenated",
      [
        [[1, 2], 5],
        [[3], 6],
      ],
      listed,
      {
        outputs: [
          [1, 2, 3],
          [5, 6],
        ],
      },
    ],
    ["a list in a list stays", [[[[1], [2]], 5]], listed, { outputs: [[[1], [2]], [5]] }],
    ["an empty list", [[[], 5]], listed, { outputs: [[], [5]] }],
    ["a set as a list", [[new Set([1, 2]), 5]], listed, { outputs: [[1, 2], [5]] }],
    ["a list that isn't declared as one is a value", [[[1, 2], 3]], two, { outputs: [[[1, 2]], [3]] }],
    ["more outputs than declared", [[1, 2, 3]], two, { outputs: [[1], [2]] }],
    ["a dict with a result", [{ result: [1, 2] }], two, { outputs: [[1], [2]] }],
    [
      "a dict with keys of other types",
      [
        new Map<unknown, unknown>([
          [1, 1],
          ["result", [1, 2]],
        ]),
      ],
      two,
      { outputs: [[1], [2]] },
    ],
    ["an empty dict", [{}], two, {}],
    ["None from a node without outputs", [null], {}, {}],
    ["no outputs", [[]], {}, { outputs: [] }],
    [
      "ui, over the calls",
      [{ ui: { images: [1], text: ["a"] } }, { ui: { images: [2, 3] } }],
      {},
      {
        ui: { images: [1, 2, 3], text: ["a"] },
      },
    ],
    [
      "ui beside a result, from some calls",
      [{ ui: { n: [1] }, result: [1, 2] }, [3, 4]],
      two,
      {
        ui: { n: [1] },
        outputs: [
          [1, 3],
          [2, 4],
        ],
      },
    ],
    ["an expansion of nothing", [{ expand: null, result: [1, 2] }], two, { outputs: [[1], [2]] }],
  ])("%s", (_, answers, node, result) => {
    expect<unknown>(merge(answers, node)).toEqual(result);
  });

  class Tensor {}

  test.each<[string, unknown, MemoryNode, string]>([
    ["too few outputs", [1], two, "returned 1 outputs, but declares 2 (INT, INT)"],
    ["a bare string", "text", two, "returned a str instead of a tuple"],
    ["a bare tensor", new Tensor(), two, "an object (Tensor) instead of a tuple"],
    ["None where outputs are declared", null, two, "returned None instead of a tuple"],
    ["a result that is no tuple", { result: 5 }, two, "returned a number instead of a tuple"],
    ["a list output that is no list", [new Tensor(), 5], listed, "output 0 (INT) is declared as a list"],
    ["a list output that is a string", ["abc", 5], listed, "output 0 (INT) is declared as a list"],
    ["ui that is no dict", { ui: [1] }, {}, 'its "ui" is an object (Array), not a dict'],
    ["an expansion", { expand: { 1: {} }, result: [1, 2] }, two, "node expansion isn't supported yet"],
  ])("%s is an error", async (_, answer, node, message) => {
    const failure = await failureOf(() => merge([answer], node));
    expect(failure.code).toBe("node_invalid");
    expect(failure.message).toContain(message);
  });
});
