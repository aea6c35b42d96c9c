/**
 * Which folders hold packs: a folder with a manifest is one, any other is searched one level down, as `custom_nodes` is.
 */
import { existsSync, readdirSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { AirlockError } from "../transport/errors.ts";

const manifestNames = ["pyisolate.yaml", "pyproject.toml"];

/**
 * The packs in `folder`, by name.
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
  if (holdsPack(absolute)) return [absolute];
  const found = readdirSync(absolute)
    .sort()
    .map((name) => join(absolute, name))
    .filter(holdsPack);
  if (found.length > 0) return found;
  throw new AirlockError("bad_request", `there is no pack in ${absolute}`, {
    hint: `a pack's folder has a manifest, ${manifestNames.join(" or ")}`,
  });
}

function holdsPack(folder: string): boolean {
  return manifestNames.some((name) => existsSync(join(folder, name)));
}
