/**
 * Which torch hosts have, remembered for as long as the folders that their Pythons look into stay what they were, and found
 * out once for all who ask at the same time.
 *
 * Asking takes a tenth of a second, half of what a worker's first answer takes. Failures are not remembered.
 */
import { stat } from "node:fs/promises";
import { identityOf, pathOf } from "./interpreter-memo.ts";
import { type PackageFolder, type ProbeOptions, probeSharedTorch, type SharedTorch } from "./shared-torch.ts";
import { SharedWork } from "./shared-work.ts";

interface Known {
  readonly identity: string | undefined;
  readonly folders: readonly PackageFolder[];
  readonly torch: SharedTorch;
}

export class SharedTorchMemo {
  readonly #known = new Map<string, Known>();
  readonly #asking = new SharedWork<SharedTorch, never>();

  /** The torch that {@link probeSharedTorch} finds. */
  async probe(named: string, options: ProbeOptions): Promise<SharedTorch> {
    const python = pathOf(named, options.variables["PATH"]) ?? named;
    const work = (signal: AbortSignal) => this.#probe(python, { ...options, signal });
    return await this.#asking.join(python, work, { signal: options.signal });
  }

  async #probe(python: string, options: ProbeOptions): Promise<SharedTorch> {
    const identity = await identityOf(python, options.variables["PATH"]);
    const known = this.#known.get(python);
    if (known !== undefined && known.identity === identity && (await areAsTheyWere(known.folders))) return known.torch;
    const { torch, folders } = await probeSharedTorch(python, options);
    this.#known.set(python, { identity, folders, torch });
    return torch;
  }
}

async function areAsTheyWere(folders: readonly PackageFolder[]): Promise<boolean> {
  const same = await Promise.all(folders.map(async ([path, state]) => (await stateOf(path)) === state));
  return same.every(Boolean);
}

async function stateOf(path: string): Promise<string | null> {
  try {
    return `${(await stat(path, { bigint: true })).mtimeNs}`;
  } catch {
    return null;
  }
}
