/**
 * Which processes belong to a worker: its group, its session, and their descendants, as `/proc` has them.
 *
 * Invariant: a process that was a worker's remains the worker's, also when its parents have ended, as long as it was
 * seen in between. One that leaves group, session and parents between two looks is not found: only a cgroup holds that.
 */
import { type Kernel, tryRead } from "./kernel.ts";

export interface ProcessEntry {
  readonly pid: number;
  readonly parent: number;
  readonly group: number;
  readonly session: number;
  readonly residentPages: number;
  /** It has ended and waits to be reaped. */
  readonly isZombie: boolean;
}

/** Rounds in which every stranger is looked at anew once: its number may be another process's by then. */
const roundsToForget = 64;

/** Reads `/proc/PID/stat`; undefined where it is no such text. */
export function parseStat(text: string): ProcessEntry | undefined {
  // The name stands in parentheses and may hold any character, these included.
  const nameEnd = text.lastIndexOf(")");
  const pid = Number.parseInt(text, 10);
  const fields = text.slice(nameEnd + 2).split(" ");
  const [state = ""] = fields;
  const [parent, group, session] = fields.slice(1, 4).map(Number);
  const residentPages = Number(fields[21]);
  if (nameEnd < 0 || parent === undefined || group === undefined || session === undefined) return undefined;
  if (Number.isNaN(pid + residentPages)) return undefined;
  return { pid, parent, group, session, residentPages, isZombie: "ZX".includes(state) };
}

export class ProcessTable {
  readonly #kernel: Kernel;
  /** Processes that are no worker's; one that was forked becomes one when its number has come to be known. */
  readonly #foreign = new Set<number>();
  /** The worker of each process that was one's when last looked. */
  #owners = new Map<number, number>();

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** The processes of each worker that live, by the worker's number. */
  processesOf(workers: ReadonlySet<number>): Map<number, ProcessEntry[]> {
    this.#forgetSome();
    for (const worker of workers) this.#foreign.delete(worker);
    const entries = this.#read();
    const owners = new Map([...workers].map((pid) => [pid, pid]));
    const before = new Map([...this.#owners].filter(([, worker]) => workers.has(worker)));
    const ownerOf = ({ pid, parent, group, session }: ProcessEntry): number | undefined => {
      for (const number of [pid, session, group, parent]) {
        const owner = owners.get(number) ?? before.get(number);
        if (owner !== undefined) return owner;
      }
      return undefined;
    };
    // A child's number may be lower than its parent's: again and again, until nothing new is found.
    let unowned = entries;
    for (let found = -1; found !== 0; ) {
      const rest: ProcessEntry[] = [];
      for (const entry of unowned) {
        const owner = ownerOf(entry);
        if (owner === undefined) rest.push(entry);
        else owners.set(entry.pid, owner);
      }
      found = unowned.length - rest.length;
      unowned = rest;
    }
    for (const { pid } of unowned) this.#foreign.add(pid);
    this.#owners = new Map(entries.flatMap(({ pid }) => (owners.has(pid) ? [[pid, owners.get(pid) ?? pid]] : [])));
    return grouped(entries, owners, workers);
  }

  /** A few strangers each round, those first that were looked at first: all at once would take long where there are many. */
  #forgetSome(): void {
    let count = Math.ceil(this.#foreign.size / roundsToForget);
    for (const pid of this.#foreign) {
      if (count-- === 0) return;
      this.#foreign.delete(pid);
    }
  }

  /** All processes but those that are known to be foreign. */
  #read(): ProcessEntry[] {
    const pids = this.#kernel.list("/proc").flatMap((name) => (/^\d+$/.test(name) ? [Number(name)] : []));
    const seen = new Set(pids);
    for (const pid of this.#foreign) if (!seen.has(pid)) this.#foreign.delete(pid);
    return pids.flatMap((pid) => {
      const stat = this.#foreign.has(pid) ? undefined : tryRead(this.#kernel, `/proc/${pid}/stat`);
      return (stat === undefined ? undefined : parseStat(stat)) ?? [];
    });
  }
}

function grouped(
  entries: readonly ProcessEntry[],
  owners: ReadonlyMap<number, number>,
  workers: ReadonlySet<number>,
): Map<number, ProcessEntry[]> {
  const processes = new Map<number, ProcessEntry[]>([...workers].map((worker) => [worker, []]));
  for (const entry of entries) {
    const owner = owners.get(entry.pid);
    if (owner !== undefined && !entry.isZombie) processes.get(owner)?.push(entry);
  }
  return processes;
}
