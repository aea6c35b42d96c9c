/**
 * A pack that a host has opened: its manifest, its environment, and the slots that its workers live in.
 *
 * Which slot a call goes to is its host's choice, who alone knows what is under way over the lines: each slot has a number.
 */
import type { CallTimeout, LimitStatus, NodeTraits, PackStatus, Progress } from "../transport/control.ts";
import { AirlockError } from "../transport/errors.ts";
import type { Environment } from "./environments/environments.ts";
import type { PackManifest } from "./environments/manifest.ts";
import type { Session } from "./session.ts";
import type { Slot } from "./slot.ts";
import type { SlotPack } from "./slot-services.ts";
import type { ResourceLimits } from "./workers/limits/resource-limits.ts";

export interface PackOptions {
  readonly host: Session;
  readonly manifest: PackManifest;
  /** Makes one of its slots, counted from 1. */
  newSlot(pack: Pack, index: number): Slot;
  /** Finds or makes the pack's environment. */
  prepareEnvironment(pack: Pack, onProgress: (progress: Progress) => void, signal: AbortSignal): Promise<Environment>;
  /** How each limit is held. */
  describeLimits(limits: ResourceLimits): LimitStatus[];
}

export class Pack implements SlotPack {
  readonly host: Session;
  readonly #options: PackOptions;
  readonly #slots: Slot[] = [];
  readonly #closing = new AbortController();
  #manifest: PackManifest;

  constructor(options: PackOptions) {
    this.#options = options;
    this.host = options.host;
    this.#manifest = options.manifest;
    this.#makeSlots();
  }

  #makeSlots(): void {
    while (this.#slots.length < this.#manifest.workers) {
      this.#slots.push(this.#options.newSlot(this, this.#slots.length + 1));
    }
  }

  get name(): string {
    return this.#manifest.name;
  }

  /** The manifest as it was when the pack was last opened: the next workers'. */
  get manifest(): PackManifest {
    return this.#manifest;
  }

  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /** All slots that there are. Those beyond what the manifest asks for by now are given no more calls by their host. */
  get slots(): readonly Slot[] {
    return this.#slots;
  }

  /** The number that the pack has for its host: that of its first slot. */
  get peer(): number {
    return this.#first.peer;
  }

  get #first(): Slot {
    const [first] = this.#slots;
    if (first === undefined) throw new AirlockError("internal_error", `pack ${this.name} has no slot`);
    return first;
  }

  /** The numbers of the slots that calls are to go to. */
  get peers(): number[] {
    return this.#slots.slice(0, this.#manifest.workers).map((slot) => slot.peer);
  }

  get nodes(): Readonly<Record<string, NodeTraits>> {
    return this.#manifest.nodes;
  }

  get callTimeout(): CallTimeout | undefined {
    const { call_timeout: limit } = this.#manifest.limits;
    return limit && { ms: limit.value, source: limit.source };
  }

  get audience(): number {
    return this.#manifest.privateMemory ? this.peer : 0;
  }

  /** What the host should know of the manifest, a sentence each. */
  get warnings(): readonly string[] {
    const changed = this.#slots.flatMap(({ running }) => {
      if (running === undefined || Bun.deepEquals(running.manifest, this.#manifest)) return [];
      const since = `${this.#manifest.file} was changed after the running worker (pid ${running.pid}) was started`;
      return [`${since}; close the pack and open it again to have a worker that follows it`];
    });
    return [...this.#manifest.warnings, ...changed];
  }

  /** Takes the manifest as it is now; workers that are running go on as they were started. */
  reopen(manifest: PackManifest): void {
    const isEdited = !Bun.deepEquals(manifest, this.#manifest);
    this.#manifest = manifest;
    this.#makeSlots();
    // What a slot was held for may have been mended.
    if (isEdited) this.release();
  }

  /** Has its workers started again, however often they died. */
  release(): void {
    for (const slot of this.#slots) slot.release();
  }

  /** Ends the workers as soon as they have answered what they were given, and forgets how often they died. */
  async restart(): Promise<void> {
    await Promise.all(this.#slots.map((slot) => slot.restart()));
  }

  /** Finds or makes the pack's environment, telling `onProgress`. */
  prepare(onProgress: (progress: Progress) => void): Promise<Environment> {
    return this.#options.prepareEnvironment(this, onProgress, this.#closing.signal);
  }

  /** Ends the pack's workers, and with them the calls under way, which fail with `reason`. */
  close(reason = new AirlockError("cancelled", `the pack ${this.name} was closed`)): void {
    this.#closing.abort(reason);
    for (const slot of this.#slots) slot.close();
  }

  /** Settles when the last worker is gone. */
  get ended(): Promise<unknown> {
    return Promise.all(this.#slots.map((slot) => slot.ended));
  }

  status(): PackStatus {
    const { name, folder } = this.manifest;
    const { hello } = this.host;
    return {
      pack: this.peer,
      name,
      folder,
      host: { name: hello.name, pid: hello.pid },
      limits: this.#options.describeLimits(this.manifest.limits),
      waiting: this.#slots.reduce((sum, slot) => sum + slot.waiting, 0),
      workers: this.#slots.map((slot) => slot.status()),
    };
  }
}
