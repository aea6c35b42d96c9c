/**
 * The start of a worker: a process that has so long to say hello.
 */
import type { Clock } from "../../transport/clock.ts";
import type { AirlockError } from "../../transport/errors.ts";
import type { Limits } from "../../transport/limits.ts";
import { Worker } from "./worker.ts";
import type { WorkerProcess } from "./worker-process.ts";

export interface WorkerStart {
  readonly clock: Clock;
  readonly limits: Limits;
  /** Expects a hello with the worker's token, or no longer. */
  expect(worker: Worker): void;
  unexpect(worker: Worker): void;
  /** Starts its process. */
  spawn(worker: Worker): Promise<WorkerProcess>;
  /** A process is being started; `ended` settles with how it ended, or rejects where there never was one. */
  onSpawning(ended: Promise<string>): void;
  /** There is a process. */
  onSpawned(worker: Worker, ended: Promise<string>): void;
  /** It takes no more calls, though it has not ended. */
  onDeaf(): void;
  /** What those who wait are told where it ends before its hello. */
  failure(worker: Worker, exit: string): AirlockError;
}

/**
 * Starts a worker; settles when it has said hello.
 *
 * @throws AirlockError why no process could be started, or {@link WorkerStart.failure}.
 */
export async function startWorker(start: WorkerStart): Promise<void> {
  const { clock, limits } = start;
  const worker = new Worker(clock, () => start.onDeaf());
  start.expect(worker);
  const timer = clock.after(limits.workerStartMsMax, () => {
    worker.kill(`no hello within ${limits.workerStartMsMax / 1000} s`);
  });
  try {
    const spawned = start.spawn(worker);
    const ended = spawned.then((process) => worker.supervise(process));
    start.onSpawning(ended);
    await spawned;
    start.onSpawned(worker, ended);
    const failed = ended.then((exit) => Promise.reject(start.failure(worker, exit)));
    // The race below may be over before the worker ends; that later rejection is nobody's surprise.
    failed.catch(() => undefined);
    await Promise.race([worker.admitted, failed]);
  } finally {
    timer.cancel();
    start.unexpect(worker);
  }
}
