import { describe, expect, test } from "bun:test";
import { checkPrompt, loadWorkflow } from "../../../src/workflow/check.ts";
import { indexNodes } from "../../../src/workflow/pack.ts";
import { describeProblem } from "../../../src/workflow/problem.ts";
import { failureOf, load, memoryPack } from "./packs.ts";

const core = memoryPack("core", {
  LoadImage: { inputs: { required: { image: [["a.png", "b.png"]] } }, outputTypes: ["IMAGE", "MASK"] },
  SaveImage: { inputs: { required: { images: ["IMAGE"] }, hidden: { prompt: "PROMPT" } }, outputNode: true },
});
const filters = memoryPack("filters", {
  Blur: {
    displayName: "Soft blur",
    inputs: {
      required: { image: ["IMAGE"], radius: ["INT", { default: 3, min: 1, max: 9 }] },
      optional: { mask: ["MASK"] },
    },
    outputTypes: ["IMAGE"],
  },
  Any: { inputs: { optional: { value: ["*"] } }, outputTypes: ["*"] },
  SelfChecked: {
    inputs: { required: { image: ["IMAGE"], size: ["INT", { max: 4 }] } },
    outputTypes: ["IMAGE"],
    validatedInputs: ["input_types", "size"],
  },
});
const index = indexNodes([core, filters]);

const loaded = { class_type: "LoadImage", inputs: { image: "a.png" } };
const saved = (id: string, output = 0) => ({ class_type: "SaveImage", inputs: { images: [id, output] } });

function problemsOf(prompt: Record<string, unknown>): string[] {
  const checked = checkPrompt(prompt, index);
  return checked.ok ? [] : checked.problems.map(describeProblem);
}

describe("a workflow that can run", () => {
  test("has its nodes in order, with packs, titles, converted values and links", () => {
    const workflow = load(
      {
        9: saved("4"),
        4: {
          class_type: "Blur",
          inputs: { image: ["2", 0], radius: "5", mask: ["2", 1] },
          _meta: { title: "My blur" },
        },
        2: loaded,
      },
      core,
      filters,
    );
    expect([...workflow.nodes.keys()]).toEqual(["2", "4", "9"]);
    const blur = workflow.nodes.get("4");
    expect([blur?.title, blur?.pack, blur?.definition.name]).toEqual(["My blur", filters, "Blur"]);
    expect(Object.fromEntries(blur?.inputs ?? [])).toEqual({
      image: { kind: "link", source: "2", output: 0 },
      radius: { kind: "literal", value: 5 },
      mask: { kind: "link", source: "2", output: 1 },
    });
  });

  test("keeps all digits of a seed", () => {
    const seeded = memoryPack("seeded", {
      Noise: { inputs: { required: { seed: ["INT", { max: 2n ** 64n - 1n }] } }, outputNode: true },
    });
    const text = '{"1": {"class_type": "Noise", "inputs": {"seed": 18446744073709551615}}}';
    const seed = loadWorkflow(text, indexNodes([seeded]))
      .nodes.get("1")
      ?.inputs.get("seed");
    expect(seed).toEqual({ kind: "literal", value: 2n ** 64n - 1n });
  });

  test("leaves out nodes that no output needs, whatever their inputs", () => {
    const { nodes } = load({ 1: loaded, 2: saved("1"), 3: { class_type: "Blur", inputs: {} } }, core, filters);
    expect([...nodes.keys()]).toEqual(["1", "2"]);
  });

  test("tolerates unknown inputs: links reach the node, values don't", () => {
    const prompt = {
      1: loaded,
      2: { class_type: "SaveImage", inputs: { images: ["1", 0], extra: ["1", 1], note: "x" } },
    };
    const inputs = load(prompt, core).nodes.get("2")?.inputs;
    expect([...(inputs?.keys() ?? [])]).toEqual(["images", "extra"]);
  });

  test("accepts a value for a hidden input", () => {
    const prompt = { 1: loaded, 2: { class_type: "SaveImage", inputs: { images: ["1", 0], prompt: "mine" } } };
    expect(load(prompt, core).nodes.get("2")?.inputs.get("prompt")).toEqual({ kind: "literal", value: "mine" });
  });

  test("accepts what a class checks by itself", () => {
    const odd = { class_type: "SelfChecked", inputs: { image: ["1", 1], size: 9 } };
    expect(problemsOf({ 1: loaded, 2: odd, 3: saved("2") })).toEqual([]);
  });

  test("may pass anything through a wildcard", () => {
    expect(problemsOf({ 1: loaded, 2: { class_type: "Any", inputs: { value: ["1", 1] } }, 3: saved("2") })).toEqual([]);
  });
});

describe("a problem is found", () => {
  const blur = (inputs: Record<string, unknown>) => ({
    1: loaded,
    2: { class_type: "Blur", inputs: { image: ["1", 0], radius: 3, ...inputs }, _meta: { title: "B" } },
    3: saved("2"),
  });

  test.each<[string, Record<string, unknown>, string[]]>([
    [
      "an unknown class",
      { 1: { ...loaded, class_type: "LoadImages" }, 2: saved("1") },
      [
        'node 1 (LoadImages): no pack has this node class; the packs are "core", "filters" → did you mean LoadImage (pack "core")?',
      ],
    ],
    [
      "a missing class, even where no output needs it",
      { 1: loaded, 2: saved("1"), 3: { inputs: {} } },
      ["node 3 is not a node: class_type:"],
    ],
    ["no node at all", { 1: loaded, 2: saved("1"), 3: 7 }, ["node 3 is not a node"]],
    [
      "a link to nowhere",
      { 3: saved("8") },
      ['node 3 (SaveImage), input "images": it is linked to node 8, which isn\'t in the workflow'],
    ],
    [
      "a link past the outputs",
      { 1: loaded, 3: saved("1", 2) },
      ["output 2, counted from 0, of node 1 (LoadImage), which has 2 (IMAGE, MASK)"],
    ],
    ["a link before the outputs", { 1: loaded, 3: saved("1", -1) }, ["linked to output -1"]],
    ["a link between two outputs", { 1: loaded, 3: saved("1", 0.5) }, ["linked to output 0.5"]],
    [
      "a link from a node without outputs",
      { 1: loaded, 2: saved("1"), 3: saved("2") },
      ["node 2 (SaveImage), which has no outputs"],
    ],
    [
      "a link with too many parts",
      { 1: loaded, 3: { class_type: "SaveImage", inputs: { images: ["1", 0, 0] } } },
      ["neither a value nor a link"],
    ],
    [
      "types that differ",
      { 1: loaded, 3: saved("1", 1) },
      ["it takes IMAGE, but output 1 of node 1 (LoadImage) is MASK"],
    ],
    [
      "a missing input",
      { 1: loaded, 2: { class_type: "Blur", inputs: { image: ["1", 0] } }, 3: saved("2") },
      ['node 2 "Soft blur" (Blur), input "radius": this required input (INT) is missing → the widget\'s default is 3'],
    ],
    ["a value out of range", blur({ radius: 12 }), ['node 2 "B" (Blur), input "radius": 12 is above the maximum of 9']],
    ["a value of the wrong kind", blur({ radius: "wide" }), ['input "radius": "wide" can\'t be converted to INT']],
    [
      "no output node",
      { 1: loaded },
      ["no node of the workflow is an output node, so there is nothing to run → add a SaveImage or PreviewImage"],
    ],
    [
      "a cycle",
      {
        1: { class_type: "Any", inputs: { value: ["2", 0] } },
        2: { class_type: "Any", inputs: { value: ["1", 0] } },
        3: saved("1"),
      },
      ["the nodes 1 (Any) → 2 (Any) → 1 (Any) feed each other in a circle → remove a link"],
    ],
    [
      "a cycle through an undeclared input",
      { 1: loaded, 3: { class_type: "SaveImage", inputs: { images: ["1", 0], x: ["3", 0] } } },
      ["node 3 (SaveImage), which has no outputs", "3 (SaveImage) → 3 (SaveImage)"],
    ],
  ])("%s", (_, prompt, expected) => {
    const problems = problemsOf(prompt);
    expect(problems).toHaveLength(expected.length);
    for (const [at, text] of expected.entries()) expect(problems[at]).toContain(text);
  });

  test("an unknown class isn't blamed a second time for having no output node", () => {
    expect(problemsOf({ 1: { class_type: "Nothing", inputs: {} } })).toHaveLength(1);
  });

  test("all are told at once", async () => {
    const text = JSON.stringify({
      1: { class_type: "LoadImage", inputs: { image: "c.png" } },
      2: { class_type: "Blur", inputs: { image: ["1", 1], radius: 0 } },
      3: saved("2"),
      4: { class_type: "Sharpen" },
    });
    const failure = await failureOf(() => loadWorkflow(text, index));
    expect(failure.code).toBe("workflow_invalid");
    expect(failure.message.split("\n")).toEqual([
      "the workflow has 4 problems:",
      expect.stringContaining("node 4 (Sharpen): no pack has this node class"),
      expect.stringContaining('node 1 (LoadImage), input "image": "c.png" is not in the list'),
      expect.stringContaining('node 2 "Soft blur" (Blur), input "image": it takes IMAGE'),
      expect.stringContaining('node 2 "Soft blur" (Blur), input "radius": 0 is below the minimum of 1'),
    ]);
  });

  test("one alone keeps its hint apart", async () => {
    const failure = await failureOf(() => load({ 1: loaded }, core));
    expect(failure.details.hint).toBe("add a SaveImage or PreviewImage");
    expect(failure.message).not.toContain("→");
  });
});
