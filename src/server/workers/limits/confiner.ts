/**
 * Holds workers to their packs' limits: gives each limit to the first mechanism that can hold it, looks now and then, and
 * ends the worker that was found over one.
 *
 * Invariant: a worker is ended for its own excess and no other's; its exit then says what, and settles once nothing is left
 * of its confinement. Looks at nothing while no worker has limits.
 */
import type { Clock, Timer } from "../../../transport/clock.ts";
import type { LimitStatus } from "../../../transport/control.ts";
import type { PackManifest } from "../../environments/manifest.ts";
import type { ProcessExit } from "../exit.ts";
import type { WorkerProcess } from "../worker-process.ts";
import type { Confinement, Exceeded, Means, Mechanism } from "./mechanism.ts";
import {
  formatLimit,
  type Limit,
  type LimitName,
  type LimitPolicy,
  limitNames,
  type ResourceLimits,
  resolveLimits,
  type WorkerLimitName,
} from "./resource-limits.ts";

/** How far apart looks are. A worker can take a gigabyte between two of them; each costs a fraction of a millisecond. */
export const lookMs = 250;

const callTimeoutMeans: Means = { isEnforced: true, how: "the relay and the host, call by call" };

export interface ConfinerOptions {
  /** In the order of preference. */
  readonly mechanisms: readonly Mechanism[];
  readonly clock: Clock;
  readonly policy: LimitPolicy;
}

interface Confined {
  readonly process: WorkerProcess;
  readonly parts: readonly Confinement[];
  exceeded: Exceeded | undefined;
}

export class Confiner {
  readonly #options: ConfinerOptions;
  readonly #confined = new Set<Confined>();
  #timer: Timer | undefined;
  #isLooking = false;

  constructor(options: ConfinerOptions) {
    this.#options = options;
  }

  /** The manifest with the limits that hold, and a warning for each that does not, or not as asked. */
  resolve(manifest: PackManifest): PackManifest {
    const { limits, warnings } = resolveLimits(manifest.limits, this.#options.policy);
    const unheld = entriesOf(limits).flatMap(([name, limit]) => {
      const { isEnforced, how } = this.#means(name, limit.value);
      return isEnforced ? [] : [`${limit.source} (${formatLimit(name, limit.value)}) is not enforced: ${how}`];
    });
    return { ...manifest, limits, warnings: [...manifest.warnings, ...warnings, ...unheld] };
  }

  /** How each limit is held, for a status. */
  describe(limits: ResourceLimits): LimitStatus[] {
    return entriesOf(limits).map(([name, { value, source }]) => {
      const { isEnforced, how } = this.#means(name, value);
      return { name, value: formatLimit(name, value), source, enforced: isEnforced, how };
    });
  }

  /** How a limit is held: by the first mechanism that can, and why not by one before that. */
  #means(name: LimitName, value: number): Means {
    if (name === "call_timeout") return callTimeoutMeans;
    const said: string[] = [];
    for (const mechanism of this.#options.mechanisms) {
      const means = mechanism.means(name, value);
      if (means?.isEnforced) return { isEnforced: true, how: [means.how, ...said].join("; ") };
      if (means !== undefined) said.push(means.how);
    }
    return { isEnforced: false, how: said.join("; ") };
  }

  /**
   * Takes charge of a worker whose process has just come to be known, and runs nothing of its pack yet.
   *
   * @returns the same process, whose exit says so where a limit has ended it.
   */
  confine(process: WorkerProcess, limits: ResourceLimits): WorkerProcess {
    const parts = this.#share(process.pid, limits);
    if (parts.length === 0) return process;
    const confined: Confined = { process, parts, exceeded: undefined };
    this.#confined.add(confined);
    this.#lookLater();
    return {
      pid: process.pid,
      exited: process.exited.then((exit) => this.#ended(confined, exit)),
      // It is there only once the process has crashed.
      get crashStack() {
        return process.crashStack;
      },
      dumpStacks: () => process.dumpStacks(),
      kill: () => process.kill(),
    };
  }

  /** Gives each mechanism what it can hold. One that fails says so from then on, and the next ones get what it had. */
  #share(pid: number, limits: ResourceLimits): Confinement[] {
    const parts: Confinement[] = [];
    const { mechanisms } = this.#options;
    let left = entriesOf(limits).filter((entry): entry is [WorkerLimitName, Limit] => entry[0] !== "call_timeout");
    for (const mechanism of mechanisms) {
      const taken = left.filter(([name, { value }]) => mechanism.means(name, value)?.isEnforced);
      if (taken.length === 0) continue;
      try {
        parts.push(mechanism.confine(pid, Object.fromEntries(taken)));
        left = left.filter((entry) => !taken.includes(entry));
      } catch {
        // The kernel refused it. The mechanism holds no such limit any more, and says why; the next one gets it.
      }
    }
    return parts;
  }

  async #ended(confined: Confined, exit: ProcessExit): Promise<ProcessExit> {
    // First: what is left of it is ended by its parts, and its numbers may be other processes' from now on.
    this.#confined.delete(confined);
    if (this.#confined.size === 0) this.#stopLooking();
    const found = await Promise.all(confined.parts.map((part) => part.end()));
    const exceeded = confined.exceeded ?? found.find((each) => each !== undefined);
    return exceeded === undefined ? exit : { ...exit, exceeded };
  }

  #lookLater(): void {
    if (this.#timer !== undefined || this.#isLooking || this.#confined.size === 0) return;
    this.#timer = this.#options.clock.after(lookMs, () => {
      this.#timer = undefined;
      void this.#look();
    });
  }

  #stopLooking(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  async #look(): Promise<void> {
    this.#isLooking = true;
    await Promise.all(this.#options.mechanisms.map((mechanism) => mechanism.look()));
    for (const confined of this.#confined) this.#judge(confined);
    this.#isLooking = false;
    this.#lookLater();
  }

  #judge(confined: Confined): void {
    confined.exceeded ??= confined.parts.find((part) => part.exceeded !== undefined)?.exceeded;
    if (confined.exceeded === undefined) return;
    confined.process.kill();
    for (const part of confined.parts) part.kill();
  }

  /** The server ends; all workers have ended. */
  close(): void {
    this.#stopLooking();
    for (const mechanism of this.#options.mechanisms) mechanism.close();
  }
}

function entriesOf(limits: ResourceLimits): [LimitName, Limit][] {
  return limitNames.flatMap((name): [LimitName, Limit][] => {
    const limit = limits[name];
    return limit === undefined ? [] : [[name, limit]];
  });
}
