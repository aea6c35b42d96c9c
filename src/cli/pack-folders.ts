/**
 * Which folders hold packs: a folder with a manifest is one, any other is searched one level down, as `custom_nodes` is.
 */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { AirlockError } from "../transport/errors.ts";

/**
 * The packs in `folder`, by name. Folders in it that do not ask to be isolated are not among them.
 *
 * @throws AirlockError `bad_request` where there is no such folder or no pack in it.
 */
export function findPackFolders(folder: string): string[] {
  const absolute = resolve(folder);
  if (!statSync(absolute, { throwIfNoEntry: false })?.isDirectory()) {
    throw new AirlockError("bad_request", `${absolute} is not a folder`, {
      hint: "--packs takes a pack, or a folder of packs",
    });
  }
  if (asksForIsolation(absolute)) return [absolute];
  const found = readdirSync(absolute)
    .sort()
    .map((name) => join(absolute, name))
    .filter(asksForIsolation);
  if (found.length > 0) return found;
  throw new AirlockError("bad_request", `there is no pack in ${absolute}`, {
    hint: "a pack's folder has a pyisolate.yaml, or a pyproject.toml with [tool.comfy.isolation]",
  });
}

function asksForIsolation(folder: string): boolean {
  if (existsSync(join(folder, "pyisolate.yaml"))) return true;
  const project = join(folder, "pyproject.toml");
  if (!existsSync(project)) return false;
  try {
    const document = Bun.TOML.parse(readFileSync(project, "utf8")) as { tool?: { comfy?: { isolation?: unknown } } };
    return document.tool?.comfy?.isolation !== undefined;
  } catch {
    // Whether it asks cannot be told; opening it says what is wrong with the file.
    return true;
  }
}
