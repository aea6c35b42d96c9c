import { describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findPackFolders } from "../../../src/cli/pack-folders.ts";
import { thrownBy } from "../../support/errors.ts";
import { temporaryFolders } from "../../support/folders.ts";

const newFolder = temporaryFolders();
const asks = "[tool.comfy.isolation]\ncan_isolate = true\n";

/** A folder with a folder for each entry, which holds the given manifest. */
function folderOf(packs: Record<string, readonly [file: string, text: string]>): string {
  const folder = newFolder();
  for (const [name, [file, text]] of Object.entries(packs)) {
    mkdirSync(join(folder, name));
    writeFileSync(join(folder, name, file), text);
  }
  return folder;
}

describe("the packs in a folder", () => {
  test("are those that ask to be isolated, by name", () => {
    const folder = folderOf({
      yaml: ["pyisolate.yaml", "isolated: true\n"],
      asking: ["pyproject.toml", asks],
      ordinary: ["pyproject.toml", '[project]\nname = "ordinary"\n'],
      scripts: ["tool.py", ""],
      unwilling: ["pyproject.toml", "[tool.comfy.isolation]\ncan_isolate = false\n"],
      reluctant: ["pyisolate.yaml", "isolated: false\n"],
    });
    expect(findPackFolders(folder)).toEqual([join(folder, "asking"), join(folder, "yaml")]);
  });

  test("include one whose manifest cannot be read: opening it says why", () => {
    const folder = folderOf({ broken: ["pyproject.toml", "[tool"] });
    expect(findPackFolders(folder)).toEqual([join(folder, "broken")]);
  });

  test("are the folder itself where it is one", () => {
    const folder = folderOf({ pack: ["pyproject.toml", asks] });
    expect(findPackFolders(join(folder, "pack"))).toEqual([join(folder, "pack")]);
  });

  test("that there are none of, or no folder, is said with what is looked for", () => {
    const folder = folderOf({ ordinary: ["pyproject.toml", "[project]\n"] });
    const error = thrownBy(() => findPackFolders(folder));
    expect([error.code, error.details.hint]).toEqual([
      "bad_request",
      expect.stringContaining("[tool.comfy.isolation]"),
    ]);
    expect(thrownBy(() => findPackFolders(join(folder, "missing"))).message).toContain("is not a folder");
  });
});
