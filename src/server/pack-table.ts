/**
 * The packs that hosts have open, and those that are closed but whose worker has not ended yet.
 *
 * Invariant: a pack is in the table from its opening until its worker is gone, so that stopping the server can wait for
 * all of them. A host finds its own packs only.
 */
import type { PackStatus } from "../transport/control.ts";
import { AirlockError } from "../transport/errors.ts";
import type { PackManifest } from "./environments/manifest.ts";
import type { Pack } from "./pack.ts";
import type { Session } from "./session.ts";
import type { Worker } from "./workers/worker.ts";

export interface PackTableOptions {
  readonly packsPerHostMax: number;
  newPack(host: Session, manifest: PackManifest): Pack;
}

export class PackTable {
  readonly #options: PackTableOptions;
  readonly #open = new Map<Session, Map<number, Pack>>();
  readonly #all = new Set<Pack>();

  constructor(options: PackTableOptions) {
    this.#options = options;
  }

  /**
   * The host's pack in the manifest's folder; opening a folder twice gives the same pack, whose calls share one worker.
   *
   * @throws AirlockError `limit_exceeded` for one pack too many.
   */
  open(host: Session, manifest: PackManifest): Pack {
    const packs = this.#open.get(host) ?? new Map<number, Pack>();
    const opened = [...packs.values()].find((pack) => pack.manifest.folder === manifest.folder);
    if (opened !== undefined) {
      opened.reopen(manifest);
      return opened;
    }
    const { packsPerHostMax } = this.#options;
    if (packs.size >= packsPerHostMax) {
      throw new AirlockError("limit_exceeded", `this host has ${packsPerHostMax} packs open, as many as are allowed`);
    }
    const pack = this.#options.newPack(host, manifest);
    this.#open.set(host, packs.set(pack.peer, pack));
    this.#all.add(pack);
    return pack;
  }

  find(host: Session, peer: number): Pack | undefined {
    return this.#open.get(host)?.get(peer);
  }

  /**
   * The host's pack of this number.
   *
   * @throws AirlockError `pack_not_open`.
   */
  get(host: Session, peer: number): Pack {
    const pack = this.find(host, peer);
    if (pack !== undefined) return pack;
    const hint = "open the pack first; a pack belongs to the host that opened it";
    throw new AirlockError("pack_not_open", `peer ${peer} is no pack of this host`, { hint });
  }

  /** The worker of this process id, whoever's pack it runs. */
  findWorker(pid: number): { readonly pack: Pack; readonly worker: Worker } | undefined {
    for (const pack of this.#all) {
      const worker = pack.workerOf(pid);
      if (worker !== undefined) return { pack, worker };
    }
    return undefined;
  }

  /** Closes one pack of a host; calls under way fail with `reason`, by default that it was closed. */
  close(pack: Pack, reason?: AirlockError): void {
    this.#open.get(pack.host)?.delete(pack.peer);
    pack.close(reason);
    void pack.ended.then(() => this.#all.delete(pack));
  }

  /** Closes all packs of a host. */
  closeAll(host: Session, reason?: AirlockError): void {
    for (const pack of [...(this.#open.get(host)?.values() ?? [])]) this.close(pack, reason);
    this.#open.delete(host);
  }

  /** Closes everything, for `reason`; settles when the last worker is gone. */
  async end(reason: AirlockError): Promise<void> {
    for (const host of [...this.#open.keys()]) this.closeAll(host, reason);
    await Promise.all([...this.#all].map((pack) => pack.ended));
  }

  /** Workers that a line leads to. */
  get workersOnLines(): Session[] {
    return [...this.#all].flatMap((pack) => pack.workerOnLine ?? []);
  }

  /** The packs that are open. */
  status(): PackStatus[] {
    return [...this.#open.values()].flatMap((packs) => [...packs.values()].map((pack) => pack.status()));
  }
}
