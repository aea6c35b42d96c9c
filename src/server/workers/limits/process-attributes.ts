/**
 * Limits that the kernel keeps for each process by itself, and children inherit: open files, and which CPUs it runs on.
 *
 * Set from outside, on a process that has had no time to start others. They end with the process, so nothing is left.
 */
import type { Libc } from "../../../transport/libc.ts";
import type { Confinement, Means, Mechanism } from "./mechanism.ts";
import { formatLimit, type ResourceLimits, type WorkerLimitName } from "./resource-limits.ts";

export interface ProcessAttributesOptions {
  readonly libc: Pick<Libc, "limitOpenFiles" | "setAffinity">;
  /** The numbers of the CPUs that the server itself may run on. */
  readonly cpus: readonly number[];
}

export class ProcessAttributes implements Mechanism {
  readonly #options: ProcessAttributesOptions;
  /** Where the CPUs of the next worker begin: workers are spread. */
  #nextCpu = 0;

  constructor(options: ProcessAttributesOptions) {
    this.#options = options;
  }

  means(name: WorkerLimitName, value: number): Means | undefined {
    if (name === "open_files") return { isEnforced: true, how: "RLIMIT_NOFILE, for each of its processes" };
    return name === "cpus" ? this.#meansForCpus(value) : undefined;
  }

  #meansForCpus(value: number): Means {
    const there = this.#options.cpus.length;
    const whole = Math.ceil(value);
    if (value >= there) return { isEnforced: true, how: `there are only ${there}` };
    if (whole >= there) {
      return {
        isEnforced: false,
        how: `only whole CPUs can be given, and the server has ${formatLimit("cpus", there)}`,
      };
    }
    return { isEnforced: true, how: `CPU affinity: approximate, it runs on ${whole} of ${there}` };
  }

  confine(pid: number, { open_files, cpus }: ResourceLimits): Confinement {
    const { libc } = this.#options;
    if (open_files !== undefined) libc.limitOpenFiles(pid, open_files.value);
    if (cpus !== undefined) libc.setAffinity(pid, this.#takeCpus(Math.ceil(cpus.value)));
    return unwatched;
  }

  #takeCpus(count: number): number[] {
    const { cpus } = this.#options;
    const first = this.#nextCpu;
    this.#nextCpu = (first + count) % cpus.length;
    return Array.from({ length: Math.min(count, cpus.length) }, (_, index) => cpus[(first + index) % cpus.length] ?? 0);
  }

  async look(): Promise<void> {
    // The kernel refuses what exceeds these limits: there is nothing to be found.
  }

  close(): void {
    // They ended with their processes.
  }
}

const unwatched: Confinement = { exceeded: undefined, kill: () => undefined, end: async () => undefined };

/** The CPUs in a list as `/proc/self/status` has it: `0-3,8`. */
export function parseCpuList(list: string): number[] {
  return list
    .trim()
    .split(",")
    .flatMap((range) => {
      const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(range) ?? [];
      if (first === undefined) return [];
      return Array.from({ length: Number(last) - Number(first) + 1 }, (_, index) => Number(first) + index);
    });
}
