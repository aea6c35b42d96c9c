/**
 * Limits held by the kernel: a cgroup v2 for each worker, inside of the server's own.
 *
 * Invariant: a worker is in its cgroup before it can have run anything of its pack's, and what it starts is born there.
 * A cgroup is removed when its worker has ended, with whatever is still in it.
 */
import { join } from "node:path";
import type { Clock } from "../../../transport/clock.ts";
import { type Kernel, numberAfter, tryRead } from "./kernel.ts";
import type { Confinement, Exceeded, Means, Mechanism } from "./mechanism.ts";
import {
  type Controller,
  enterOwnCgroup,
  killAll,
  leaveOwnCgroup,
  messageOf,
  type OwnCgroup,
  tryRemove,
  words,
} from "./own-cgroup.ts";
import { formatBytes, type ResourceLimits, type WorkerLimitName } from "./resource-limits.ts";

/** The controller of each limit that a cgroup can hold, and how it does. */
const controllerOf: Readonly<Partial<Record<WorkerLimitName, readonly [Controller, string]>>> = {
  memory: ["memory", "cgroup v2, memory.max"],
  processes: ["pids", "cgroup v2, its processes counted"],
  cpus: ["cpu", "cgroup v2, cpu.max"],
};

/**
 * The kernel counts threads as processes, and a pack has many threads. So processes are counted by the server, and what
 * the kernel refuses are only so many tasks that no pack needs them: those of a fork bomb, between two looks.
 */
const tasksPerProcess = 1024;
/** What the kernel takes at most (PID_MAX_LIMIT). */
const tasksMax = 4_194_304;

const cpuPeriodUs = 100_000;

/** What was killed leaves its cgroup a moment later. */
const removal = { attempts: 50, waitMs: 20 } as const;

export interface CgroupsOptions {
  readonly kernel: Kernel;
  readonly clock: Clock;
  /** This server's process. */
  readonly pid: number;
}

export class Cgroups implements Mechanism {
  readonly #options: CgroupsOptions;
  readonly #own: OwnCgroup | undefined;
  readonly #confined = new Set<WorkerCgroup>();
  /** Why there are none. */
  #absence = "";
  #lastNumber = 0;

  constructor(options: CgroupsOptions) {
    this.#options = options;
    try {
      this.#own = enterOwnCgroup(options.kernel, options.pid);
    } catch (error) {
      this.#absence = messageOf(error);
    }
  }

  means(name: WorkerLimitName): Means | undefined {
    const entry = controllerOf[name];
    if (entry === undefined) return undefined;
    const [controller, how] = entry;
    if (this.#absence !== "") return { isEnforced: false, how: `no cgroup: ${this.#absence}` };
    if (this.#own?.controllers.has(controller)) return { isEnforced: true, how };
    return { isEnforced: false, how: `the server's cgroup lacks the controller ${controller}` };
  }

  confine(pid: number, limits: ResourceLimits): Confinement {
    if (this.#own === undefined) throw new Error(this.#absence);
    const { kernel, clock } = this.#options;
    const folder = join(this.#own.path, `${this.#own.prefix}worker-${this.#nextNumber(this.#own)}`);
    try {
      const cgroup = new WorkerCgroup(kernel, clock, folder, limits, () => this.#confined.delete(cgroup));
      cgroup.take(pid);
      this.#confined.add(cgroup);
      return cgroup;
    } catch (error) {
      tryRemove(kernel, folder);
      this.#absence = messageOf(error);
      throw error;
    }
  }

  /** Another server of this process may make some, too. */
  #nextNumber({ path, prefix }: OwnCgroup): number {
    const taken = new Set(this.#options.kernel.list(path));
    do this.#lastNumber += 1;
    while (taken.has(`${prefix}worker-${this.#lastNumber}`));
    return this.#lastNumber;
  }

  async look(): Promise<void> {
    for (const cgroup of this.#confined) cgroup.look();
  }

  close(): void {
    if (this.#own !== undefined) leaveOwnCgroup(this.#options.kernel, this.#own, this.#options.pid);
  }
}

/** One worker's cgroup, from its making to its removal. */
export class WorkerCgroup implements Confinement {
  readonly #kernel: Kernel;
  readonly #clock: Clock;
  readonly #folder: string;
  readonly #limits: ResourceLimits;
  readonly #onEnd: () => void;
  exceeded: Exceeded | undefined;

  /** @throws Error where the kernel refuses the folder, or a limit. */
  constructor(kernel: Kernel, clock: Clock, folder: string, limits: ResourceLimits, onEnd: () => void) {
    this.#kernel = kernel;
    this.#clock = clock;
    this.#folder = folder;
    this.#limits = limits;
    this.#onEnd = onEnd;
    kernel.makeFolder(folder);
    this.#setLimits(limits);
  }

  #setLimits({ memory, processes, cpus }: ResourceLimits): void {
    if (memory !== undefined) {
      this.#write("memory.max", memory.value);
      // All of a worker or nothing of it: half a worker would hang.
      this.#write("memory.oom.group", 1);
      // What goes to swap instead counts as little as it helps. The file is absent where there is no swap at all.
      if (this.#read("memory.swap.max") !== undefined) this.#write("memory.swap.max", 0);
    }
    if (processes !== undefined) this.#write("pids.max", tasksOf(processes.value));
    if (cpus !== undefined) this.#write("cpu.max", `${Math.round(cpus.value * cpuPeriodUs)} ${cpuPeriodUs}`);
  }

  #read(name: string): string | undefined {
    return tryRead(this.#kernel, join(this.#folder, name));
  }

  #write(name: string, value: number | string): void {
    this.#kernel.write(join(this.#folder, name), String(value));
  }

  /** Moves a process in; what it has started by now stays outside. */
  take(pid: number): void {
    try {
      this.#write("cgroup.procs", pid);
    } catch (error) {
      // It has ended already: nothing is left to be held.
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }

  look(): void {
    this.exceeded ??= this.#outOfMemory() ?? this.#tooMany();
  }

  #outOfMemory(): Exceeded | undefined {
    const { memory } = this.#limits;
    if (memory === undefined || !numberAfter(this.#read("memory.events") ?? "", "oom_kill")) return undefined;
    // What it wanted besides is not known: the kernel refused it.
    const peakBytes = Number(this.#read("memory.peak") ?? memory.value);
    const measure = `${formatBytes(peakBytes)} of ${formatBytes(memory.value)}`;
    return { what: `memory ${measure}, and asked for more (cgroup)`, source: memory.source };
  }

  #tooMany(): Exceeded | undefined {
    const { processes } = this.#limits;
    if (processes === undefined) return undefined;
    const count = words(this.#read("cgroup.procs")).length;
    if (count > processes.value) return { what: `processes ${count} of ${processes.value}`, source: processes.source };
    if (!numberAfter(this.#read("pids.events") ?? "", "max")) return undefined;
    const tasks = tasksOf(processes.value);
    return { what: `processes and threads ${tasks}, of ${processes.value} processes`, source: processes.source };
  }

  kill(): void {
    killAll(this.#kernel, this.#folder);
  }

  async end(): Promise<Exceeded | undefined> {
    this.#onEnd();
    this.look();
    this.kill();
    for (let attempt = 0; attempt < removal.attempts && !tryRemove(this.#kernel, this.#folder); attempt++) {
      await new Promise<void>((resolve) => this.#clock.after(removal.waitMs, resolve));
    }
    return this.exceeded;
  }
}

function tasksOf(processes: number): number {
  return Math.min(processes * tasksPerProcess, tasksMax);
}
