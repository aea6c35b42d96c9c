/**
 * What holds workers to limits: the interface of the mechanisms in this folder, and what both sides of it say.
 *
 * A mechanism takes charge of some of a worker's limits. What each of them promises is one list of cases,
 * `tests/unit/server/limits/conformance.test.ts`.
 */
import type { ResourceLimits, WorkerLimitName } from "./resource-limits.ts";

/** How a limit is held. */
export interface Means {
  readonly isEnforced: boolean;
  /** By what, or why not: the end of a sentence that begins with the limit. */
  readonly how: string;
}

/** What a worker was ended for. */
export interface Exceeded {
  /** What, the measure and the limit: `memory 8.3 GiB of 8 GiB (PSS of 2 processes)`. */
  readonly what: string;
  /** Where the limit was set. */
  readonly source: string;
}

/** One worker in a mechanism's charge. */
export interface Confinement {
  /** What the worker was found to exceed when it was last looked at. It is to be ended then. */
  readonly exceeded: Exceeded | undefined;
  /** Ends what belongs to the worker and lies outside of its process group. */
  kill(): void;
  /** The worker's process has ended: leaves nothing of it, and tells what ended it, where that was a limit. */
  end(): Promise<Exceeded | undefined>;
}

export interface Mechanism {
  /** How it would hold this limit; undefined where it has nothing to do with such limits. */
  means(name: WorkerLimitName, value: number): Means | undefined;
  /**
   * Takes charge of a process that was spawned in this turn of the event loop, for limits that it enforces.
   *
   * @throws Error where the kernel refuses it; it then enforces nothing of the kind any more, and says why.
   */
  confine(pid: number, limits: ResourceLimits): Confinement;
  /** Looks at all that is in its charge, once. */
  look(): Promise<void>;
  /** The server ends. All that was in its charge has ended. */
  close(): void;
}
