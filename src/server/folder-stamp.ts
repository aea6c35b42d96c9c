/**
 * Whether a pack was edited: a text that changes when one of its files does.
 *
 * Looks at names, sizes and times of change and reads nothing. What Python and version control write by themselves does
 * not count, and a pack of very many files is known by the first of them.
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";

const filesMax = 5_000;
const passedOver = new Set(["__pycache__", ".git", ".venv", "node_modules"]);

/** Never rejects: a folder that is gone has a stamp too. */
export async function stampOf(folder: string): Promise<string> {
  const digest = new Bun.CryptoHasher("sha256");
  const folders = [folder];
  let files = 0;
  for (let next = folders.shift(); next !== undefined && files < filesMax; next = folders.shift()) {
    const entries = await readdir(next, { withFileTypes: true }).catch(() => []);
    for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const path = join(next, entry.name);
      if (passedOver.has(entry.name)) continue;
      if (entry.isDirectory()) folders.push(path);
      if (!entry.isFile() || files >= filesMax) continue;
      files += 1;
      const found = await stat(path).catch(() => undefined);
      digest.update(`${path}\0${found?.size}\0${found?.mtimeMs}\n`);
    }
  }
  return digest.digest("hex");
}
