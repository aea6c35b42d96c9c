import { expect, test } from "bun:test";
import { OutputStore } from "../../../src/workflow/output-store.ts";
import type { Link, WorkflowNode } from "../../../src/workflow/workflow.ts";
import { failureOf, load, memoryPack } from "./packs.ts";

const pack = memoryPack("p", {
  Make: { outputTypes: ["A", "B", "C"] },
  Use: { inputs: { optional: { x: ["*"], y: ["*"] } }, outputTypes: ["*"], outputNode: true },
});
const { nodes } = load(
  {
    make: { class_type: "Make" },
    one: { class_type: "Use", inputs: { x: ["make", 0], y: ["make", 0] } },
    two: { class_type: "Use", inputs: { x: ["make", 0], y: ["make", 1] } },
  },
  pack,
);

function node(id: string): WorkflowNode {
  const found = nodes.get(id);
  if (found === undefined) throw new Error(`no node ${id}`);
  return found;
}

const link = (output: number): Link => ({ kind: "link", source: "make", output });

test("a slot is there until the last of its links was used", async () => {
  const store = new OutputStore(nodes.values(), new Set());
  expect([store.isRead("make"), store.isRead("one")]).toEqual([true, false]);
  store.put("make", [["a"], ["b"], ["c"]]);
  expect(store.waitingCount).toBe(2);
  store.release(node("two"));
  expect(store.waitingCount).toBe(1);
  expect(store.read(link(0))).toEqual(["a"]);
  store.release(node("one"));
  expect(store.waitingCount).toBe(0);
  expect((await failureOf(() => store.read(link(0)))).code).toBe("internal_error");
});

test("what nobody links to isn't kept", async () => {
  const store = new OutputStore(nodes.values(), new Set());
  store.put("make", [["a"], ["b"], ["c"]]);
  expect((await failureOf(() => store.read(link(2)))).code).toBe("internal_error");
});

test("the outputs of kept nodes stay", () => {
  const store = new OutputStore(nodes.values(), new Set(["make"]));
  store.put("make", [["a"], ["b"], ["c"]]);
  for (const id of ["one", "two"]) store.release(node(id));
  expect([...store.kept]).toEqual([["make", [["a"], ["b"], ["c"]]]]);
});
