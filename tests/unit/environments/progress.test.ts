import { expect, test } from "bun:test";
import { type EnvironmentStage, stageOfUvLine } from "../../../src/server/environments/progress.ts";

test("an ordinary run of uv goes through its stages in order", () => {
  const lines = [
    "Using Python 3.11.7 environment at: e",
    "Resolved 2 packages in 131ms",
    "Downloading numpy (16.1MiB)",
    "   Building sdist-only==1.0",
    "Prepared 2 packages in 9ms",
    "Installed 2 packages in 1ms",
    " + msgpack==1.2.4",
    "words that nobody has seen before",
  ];
  let stage: EnvironmentStage = "resolving";
  const stages = lines.map((line) => {
    stage = stageOfUvLine(line, stage);
    return stage;
  });
  expect(stages).toEqual([
    "resolving",
    "downloading",
    "downloading",
    "downloading",
    "installing",
    "installing",
    "installing",
    "installing",
  ]);
});
