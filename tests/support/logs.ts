/** Logs of workers without a server around them. */
import { Pace } from "../../src/server/workers/pace.ts";
import { WorkerLog, type WorkerLogOptions } from "../../src/server/workers/worker-log.ts";
import { systemClock } from "../../src/transport/clock.ts";
import { loadLibc } from "../../src/transport/libc.ts";

/** A log whose lines are all of one moment. */
export function newWorkerLog(path: string, options: Partial<WorkerLogOptions> = {}): WorkerLog {
  return new WorkerLog({
    path,
    tryLock: loadLibc().tryLock,
    clock: systemClock,
    timeOfDay: () => new Date("2026-01-02T03:04:05.678Z"),
    pace: new Pace(systemClock),
    onUnwritable: () => undefined,
    ...options,
  });
}
