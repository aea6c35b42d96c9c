import { expect, test } from "bun:test";
import { parsePrompt } from "../../../src/workflow/prompt.ts";
import { failureOf } from "./packs.ts";

test("a prompt is read as it is", () => {
  const prompt = { "1": { class_type: "A", inputs: { seed: 1 } } };
  expect(parsePrompt(JSON.stringify(prompt))).toEqual(prompt);
});

test("a node may be called prompt", () => {
  const prompt = { prompt: { class_type: "A" } };
  expect(parsePrompt(JSON.stringify(prompt))).toEqual(prompt);
});

test.each([
  ["bad JSON", '{"1": {,}}', "not valid JSON at line 1, column 8", undefined],
  ["the editor's format", '{"version": 0.4, "nodes": [], "links": []}', "graph editor's format", "Export (API)"],
  ["a request", '{"client_id": "x", "prompt": {"1": {}}}', "a request to /prompt", 'its "prompt"'],
  ["a list", "[]", "not an object", "Save (API Format)"],
  ["nothing", "{}", "has no nodes", undefined],
])("%s is recognised", async (_, text, message, hint) => {
  const failure = await failureOf(() => parsePrompt(text));
  expect(failure.code).toBe("workflow_invalid");
  expect(failure.message).toContain(message);
  if (hint === undefined) expect(failure.details.hint).toBeUndefined();
  else expect(failure.details.hint).toContain(hint);
});
