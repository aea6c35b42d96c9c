/**
 * The packs that hosts have open, and those that are closed but whose workers have not all ended yet.
 *
 * Invariant: a pack is in the table from its opening until its last worker is gone, so that stopping the server can wait
 * for all of them. A host finds its own packs only.
 */
import type { PackStatus } from "../transport/control.ts";
import { AirlockError } from "../transport/errors.ts";
import { type PackManifest, packKey } from "./environments/manifest.ts";
import type { Pack } from "./pack.ts";
import type { Session } from "./session.ts";
import type { Slot } from "./slot.ts";
import type { Worker } from "./workers/worker.ts";

export interface PackTableOptions {
  readonly packsPerHostMax: number;
  newPack(host: Session, manifest: PackManifest): Pack;
}

/** What one host has open. */
class HostPacks {
  readonly byKey = new Map<string, Pack>();
  /** By the number of each of its slots. */
  readonly bySlot = new Map<number, { readonly pack: Pack; readonly slot: Slot }>();

  /** Takes in a pack, or the slots that it has more than before. */
  add(pack: Pack): void {
    this.byKey.set(packKey(pack.manifest), pack);
    for (const slot of pack.slots) this.bySlot.set(slot.peer, { pack, slot });
  }

  remove(pack: Pack): void {
    this.byKey.delete(packKey(pack.manifest));
    for (const slot of pack.slots) this.bySlot.delete(slot.peer);
  }
}

export class PackTable {
  readonly #options: PackTableOptions;
  readonly #hosts = new Map<Session, HostPacks>();
  readonly #all = new Set<Pack>();

  constructor(options: PackTableOptions) {
    this.#options = options;
  }

  /**
   * The host's pack in the manifest's folder; opening a folder twice gives the same pack, whose calls share its workers.
   *
   * @throws AirlockError `limit_exceeded` for one pack too many.
   */
  open(host: Session, manifest: PackManifest): Pack {
    const packs = this.#hosts.get(host) ?? new HostPacks();
    const opened = packs.byKey.get(packKey(manifest));
    opened?.reopen(manifest);
    const { packsPerHostMax } = this.#options;
    if (opened === undefined && packs.byKey.size >= packsPerHostMax) {
      throw new AirlockError("limit_exceeded", `this host has ${packsPerHostMax} packs open, as many as are allowed`);
    }
    const pack = opened ?? this.#options.newPack(host, manifest);
    packs.add(pack);
    this.#hosts.set(host, packs);
    this.#all.add(pack);
    return pack;
  }

  /** The slot of one of the host's packs that has this number. */
  find(host: Session, peer: number): Slot | undefined {
    return this.#hosts.get(host)?.bySlot.get(peer)?.slot;
  }

  /**
   * The slot of one of the host's packs that has this number.
   *
   * @throws AirlockError `pack_not_open`.
   */
  get(host: Session, peer: number): Slot {
    return this.#entry(host, peer).slot;
  }

  /**
   * The host's pack one of whose slots has this number.
   *
   * @throws AirlockError `pack_not_open`.
   */
  packOf(host: Session, peer: number): Pack {
    return this.#entry(host, peer).pack;
  }

  #entry(host: Session, peer: number): { readonly pack: Pack; readonly slot: Slot } {
    const entry = this.#hosts.get(host)?.bySlot.get(peer);
    if (entry !== undefined) return entry;
    const hint = "open the pack first; a pack belongs to the host that opened it";
    throw new AirlockError("pack_not_open", `peer ${peer} is no pack of this host`, { hint });
  }

  /** The worker of this process id, whoever's pack it runs. */
  findWorker(pid: number): { readonly pack: Pack; readonly worker: Worker } | undefined {
    for (const pack of this.#all) {
      for (const slot of pack.slots) {
        const worker = slot.workerOf(pid);
        if (worker !== undefined) return { pack, worker };
      }
    }
    return undefined;
  }

  /** The open packs of this name, whoever opened them. */
  named(name: string): Pack[] {
    return this.#opened.filter((pack) => pack.name === name);
  }

  get #opened(): Pack[] {
    return [...this.#hosts.values()].flatMap((packs) => [...packs.byKey.values()]);
  }

  /** Closes one pack of a host; calls under way fail with `reason`, by default that it was closed. */
  close(pack: Pack, reason?: AirlockError): void {
    this.#hosts.get(pack.host)?.remove(pack);
    pack.close(reason);
    void pack.ended.then(() => this.#all.delete(pack));
  }

  /** Closes all packs of a host. */
  closeAll(host: Session, reason?: AirlockError): void {
    for (const pack of [...(this.#hosts.get(host)?.byKey.values() ?? [])]) this.close(pack, reason);
    this.#hosts.delete(host);
  }

  /** Closes everything, for `reason`; settles when the last worker is gone. */
  async end(reason: AirlockError): Promise<void> {
    for (const host of [...this.#hosts.keys()]) this.closeAll(host, reason);
    await Promise.all([...this.#all].map((pack) => pack.ended));
  }

  /** Has all workers finish what they were given, within the time there is. */
  async drain(withinMs: number): Promise<void> {
    await Promise.all(this.#opened.flatMap((pack) => pack.slots.map((slot) => slot.drain(withinMs))));
  }

  /** Asks all workers how they are, for the next status. */
  async look(): Promise<void> {
    await Promise.all(this.#opened.flatMap((pack) => pack.slots.map((slot) => slot.look())));
  }

  /** Hosts that have packs open. */
  get hosts(): Session[] {
    return [...this.#hosts.keys()];
  }

  /** The packs that are open. */
  status(): PackStatus[] {
    return this.#opened.map((pack) => pack.status());
  }
}
