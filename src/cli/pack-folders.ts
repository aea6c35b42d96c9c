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

/** Where that cannot be told, as of a file that is malformed, it does: opening the pack says what is wrong. */
function asksForIsolation(folder: string): boolean {
  const yaml = tableIn(join(folder, "pyisolate.yaml"), Bun.YAML.parse);
  if (yaml !== undefined) return at(yaml, "isolated") !== false;
  const project = tableIn(join(folder, "pyproject.toml"), Bun.TOML.parse);
  if (project === undefined) return false;
  if (project === "malformed") return true;
  const isolation = at(at(at(project, "tool"), "comfy"), "isolation");
  return isolation !== undefined && at(isolation, "can_isolate") !== false;
}

/** What the file holds; undefined where there is none. */
function tableIn(path: string, parse: (text: string) => unknown): unknown {
  if (!existsSync(path)) return undefined;
  try {
    return parse(readFileSync(path, "utf8")) ?? "malformed";
  } catch {
    return "malformed";
  }
}

function at(table: unknown, key: string): unknown {
  return typeof table === "object" && table !== null ? (table as Record<string, unknown>)[key] : undefined;
}
