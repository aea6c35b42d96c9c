/**
 * Limits held by looking: memory as the PSS of a worker's processes, and their number. The fall-back without a cgroup.
 *
 * Invariant: what was found over its limit by one look is reported until its end. Between two looks a worker can take more
 * than its limit; nothing holds it back but the end that follows. Ends nothing itself but what {@link Confinement.kill}
 * is asked to.
 */

import { pssOf } from "../memory.ts";
import { type Kernel, tryRead } from "./kernel.ts";
import type { Confinement, Exceeded, Means, Mechanism } from "./mechanism.ts";
import { type ProcessEntry, ProcessTable, parseStat } from "./process-table.ts";
import { formatBytes, type ResourceLimits, type WorkerLimitName } from "./resource-limits.ts";

/**
 * Looks that follow a PSS below the limit without another one, unless RSS has grown: the kernel takes some 20 ms a gigabyte to
 * count, and the process can't map memory meanwhile.
 */
const looksAfterCount = 7;

export interface WatchOptions {
  readonly kernel: Kernel;
  readonly pageBytes: number;
  /** How far apart looks are, for the words about them. */
  readonly lookMs: number;
}

export class Watch implements Mechanism {
  readonly #options: WatchOptions;
  readonly #table: ProcessTable;
  readonly #watched = new Map<number, Watched>();

  constructor(options: WatchOptions) {
    this.#options = options;
    this.#table = new ProcessTable(options.kernel);
  }

  means(name: WorkerLimitName): Means | undefined {
    const measures = { memory: "PSS of its processes", processes: "number of its processes" };
    if (name !== "memory" && name !== "processes") return undefined;
    return { isEnforced: true, how: `${measures[name]}, looked at every ${this.#options.lookMs / 1000} s` };
  }

  confine(pid: number, limits: ResourceLimits): Confinement {
    const watched = new Watched(limits, this.#options, () => this.#watched.delete(pid));
    this.#watched.set(pid, watched);
    return watched;
  }

  async look(): Promise<void> {
    if (this.#watched.size === 0) return;
    const processes = this.#table.processesOf(new Set(this.#watched.keys()));
    await Promise.all([...this.#watched].map(([pid, watched]) => watched.look(processes.get(pid) ?? [])));
  }

  close(): void {
    this.#watched.clear();
  }
}

class Watched implements Confinement {
  readonly #limits: ResourceLimits;
  readonly #options: WatchOptions;
  readonly #onEnd: () => void;
  #processes: readonly ProcessEntry[] = [];
  /** What RSS was when PSS was last found to be below the limit, and the looks for which that will do. */
  #counted = { residentBytes: 0, looksLeft: 0 };
  exceeded: Exceeded | undefined;

  constructor(limits: ResourceLimits, options: WatchOptions, onEnd: () => void) {
    this.#limits = limits;
    this.#options = options;
    this.#onEnd = onEnd;
  }

  async look(processes: readonly ProcessEntry[]): Promise<void> {
    this.#processes = processes;
    this.exceeded ??= this.#tooMany() ?? (await this.#tooLarge());
  }

  #tooMany(): Exceeded | undefined {
    const { processes: limit } = this.#limits;
    const count = this.#processes.length;
    if (limit === undefined || count <= limit.value) return undefined;
    return { what: `processes ${count} of ${limit.value}`, source: limit.source };
  }

  async #tooLarge(): Promise<Exceeded | undefined> {
    const { memory: limit } = this.#limits;
    if (limit === undefined) return undefined;
    const measured = this.#processes;
    const residentBytes = measured.reduce((sum, { residentPages }) => sum + residentPages, 0) * this.#options.pageBytes;
    // PSS is never more than RSS, which is read already; the kernel walks all pages of a process to tell its PSS.
    if (residentBytes <= limit.value) return undefined;
    if (residentBytes <= this.#counted.residentBytes && this.#counted.looksLeft > 0) {
      this.#counted.looksLeft -= 1;
      return undefined;
    }
    this.#counted = { residentBytes, looksLeft: looksAfterCount };
    const shares = await Promise.all(measured.map(({ pid }) => this.#proportionalBytes(pid)));
    const known = shares.filter((share) => share !== undefined);
    const isKnown = known.length === shares.length;
    const bytes = isKnown ? known.reduce((sum, share) => sum + share, 0) : residentBytes;
    if (bytes <= limit.value) return undefined;
    const of = `${isKnown ? "PSS" : "RSS"} of ${measured.length} ${measured.length === 1 ? "process" : "processes"}`;
    return { what: `memory ${formatBytes(bytes)} of ${formatBytes(limit.value)} (${of})`, source: limit.source };
  }

  /** The PSS of a process, 0 where it has ended; undefined where this system doesn't tell. */
  async #proportionalBytes(pid: number): Promise<number | undefined> {
    const { kernel } = this.#options;
    const bytes = await pssOf(kernel, pid);
    if (bytes !== undefined) return bytes;
    // Also a process that has just ended has no such file.
    const stat = tryRead(kernel, `/proc/${pid}/stat`);
    return stat === undefined || parseStat(stat)?.isZombie === true ? 0 : undefined;
  }

  kill(): void {
    for (const { pid } of this.#processes) this.#options.kernel.kill(pid);
  }

  async end(): Promise<Exceeded | undefined> {
    this.#onEnd();
    return this.exceeded;
  }
}
