import { expect, test } from "bun:test";
import { type InputType, typesFit } from "../../../src/workflow/socket-type.ts";

test.each<[string, InputType, boolean]>([
  ["IMAGE", "IMAGE", true],
  ["IMAGE", "MASK", false],
  ["*", "IMAGE", true],
  ["IMAGE", "*", true],
  ["INT", "FLOAT,INT", true],
  ["INT, STRING", "FLOAT , STRING", true],
  ["INT,STRING", "FLOAT,BOOLEAN", false],
  ["INT", "FLOAT", false],
  ["COMBO", ["euler", "heun"], true],
  ["COMBO", "COMBO", true],
  ["*", ["euler"], true],
  ["STRING", ["euler"], false],
])("%s into %j: %p", (output, input, fits) => {
  expect(typesFit(output, input)).toBe(fits);
});
