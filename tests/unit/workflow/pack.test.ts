import { expect, test } from "bun:test";
import { indexNodes } from "../../../src/workflow/pack.ts";
import { failureOf, memoryPack } from "./packs.ts";

test("each class leads to its pack", () => {
  const [one, two] = [memoryPack("one", { A: {}, B: {} }), memoryPack("two", { C: {} })];
  const index = indexNodes([one, two]);
  expect([...index.keys()]).toEqual(["A", "B", "C"]);
  expect(index.get("B")).toBe(one);
  expect(index.get("C")).toBe(two);
  expect(index.get("constructor")).toBeUndefined();
});

test("all classes that two packs offer are named with both packs and their folders", async () => {
  const packs = [
    memoryPack("one", { A: {}, B: {}, D: {} }),
    memoryPack("two", { A: {}, B: {} }),
    memoryPack("three", { D: {} }),
  ];
  const failure = await failureOf(() => indexNodes(packs));
  expect(failure.code).toBe("workflow_invalid");
  expect(failure.message).toBe(
    'packs "one" (/packs/one) and "two" (/packs/two) both offer A, B; ' +
      'packs "one" (/packs/one) and "three" (/packs/three) both offer D',
  );
});
