import { describe, expect, test } from "bun:test";
import { walkGraph } from "../../../src/workflow/graph.ts";

function walk(roots: string[], sources: Record<string, string[]>) {
  return walkGraph(roots, (id) => sources[id] ?? []);
}

describe("walking a graph", () => {
  test("sources come before what they feed, and branch after branch", () => {
    const { order, cycles } = walk(["save1", "save2"], {
      save1: ["blur1"],
      blur1: ["load1", "shared"],
      save2: ["blur2"],
      blur2: ["load2", "shared"],
      unused: ["load1"],
    });
    expect(order).toEqual(["load1", "shared", "blur1", "save1", "load2", "blur2", "save2"]);
    expect(cycles).toEqual([]);
  });

  test("a cycle is a path in the direction of the data", () => {
    expect(walk(["d"], { d: ["c"], c: ["b"], b: ["a", "c"] }).cycles).toEqual([["c", "b", "c"]]);
    expect(walk(["c"], { c: ["b"], b: ["a"], a: ["c"] }).cycles).toEqual([["c", "a", "b", "c"]]);
    expect(walk(["a"], { a: ["a"] }).cycles).toEqual([["a", "a"]]);
  });

  test("a long chain doesn't exhaust the stack", () => {
    const { order } = walkGraph(["100000"], (id) => (id === "0" ? [] : [String(Number(id) - 1)]));
    expect(order).toHaveLength(100_001);
  });
});
