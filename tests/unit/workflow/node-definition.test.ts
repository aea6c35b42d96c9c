import { expect, test } from "bun:test";
import { parseNodeDefinition } from "../../../src/workflow/node-definition.ts";
import { failureOf } from "./packs.ts";

const described = {
  name: "Blur",
  display_name: "Blur an image",
  category: "image",
  inputs: { required: { image: ["IMAGE"], radius: ["INT", { default: 1 }] }, hidden: { prompt: "PROMPT" } },
  input_is_list: false,
  output_types: ["IMAGE"],
  output_names: ["image"],
  output_is_list: [false],
  output_node: false,
  is_async: true,
};

test("a worker's description becomes a definition", () => {
  expect(parseNodeDefinition(described, "pack")).toEqual({
    name: "Blur",
    displayName: "Blur an image",
    category: "image",
    inputs: {
      required: { image: ["IMAGE"], radius: ["INT", { default: 1 }] },
      optional: {},
      hidden: { prompt: "PROMPT" },
    },
    inputIsList: false,
    outputTypes: ["IMAGE"],
    outputNames: ["image"],
    outputIsList: [false],
    outputNode: false,
    isAsync: true,
    validatedInputs: [],
  });
});

test("what packs ship and ComfyUI runs is accepted", () => {
  const odd = { ...described, inputs: { optional: { image: "IMAGE" } }, output_types: [["a", "b"], "INT"] };
  const definition = parseNodeDefinition(odd, "pack");
  expect(definition.inputs.optional).toEqual({ image: ["IMAGE"] });
  expect(definition.outputTypes).toEqual(["COMBO", "INT"]);
});

test("tuples, which arrive as a subclass of Array, are sequences", () => {
  class Tuple extends Array<unknown> {}
  const outputTypes = Tuple.from(["IMAGE"]);
  const inputs = { required: { radius: Tuple.from(["INT", { min: 0 }]) } };
  const definition = parseNodeDefinition({ ...described, inputs, output_types: outputTypes }, "pack");
  expect([...definition.outputTypes]).toEqual(["IMAGE"]);
  expect(definition.inputs.required["radius"]?.[0]).toBe("INT");
});

test("a malformed description names the pack, the node and the field", async () => {
  const failure = await failureOf(() => parseNodeDefinition({ ...described, output_types: 3 }, "tiles"));
  expect(failure.code).toBe("node_invalid");
  expect(failure.details.pack).toBe("tiles");
  expect(failure.message).toStartWith('pack "tiles" describes node Blur wrongly: output_types:');
});
