/**
 * The worker that a slot has for now, and what is known of how it is.
 */
import type { Clock } from "../transport/clock.ts";
import type { PackManifest } from "./environments/manifest.ts";
import type { HealthWatch } from "./workers/health.ts";
import type { IdleWatch } from "./workers/idle-watch.ts";
import type { Worker } from "./workers/worker.ts";

/** How long somebody who wants to know how all workers are waits for one that does not say. */
const lookMsMax = 1_000;

export class Tenant {
  readonly worker: Worker;
  /** Which of the slot's workers it is; its line has the same number. */
  readonly number: number;
  /** The manifest that it was started with. */
  readonly manifest: PackManifest;
  /** There once it is ready. */
  health: HealthWatch | undefined;
  idle: IdleWatch | undefined;
  /** Bytes (PSS), when that was last looked at. */
  pss: number | undefined;

  constructor(worker: Worker, number: number, manifest: PackManifest) {
    this.worker = worker;
    this.number = number;
    this.manifest = manifest;
  }

  /** Asks it how it is, for the next status; settles when it has said so, or was given long enough to. */
  async look(clock: Clock, pssOf: (pid: number) => Promise<number | undefined>): Promise<void> {
    if (this.health === undefined) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = clock.after(lookMsMax, resolve);
    [this.pss] = await Promise.all([pssOf(this.worker.pid), Promise.race([this.health.look(), promise])]);
    timer.cancel();
  }

  /** It has ended. */
  end(): void {
    this.health?.end();
    this.idle?.stop();
  }
}
