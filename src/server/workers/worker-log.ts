/**
 * The log of one worker and of those that follow it in its place: which file it is, and how the last one ended.
 *
 * Outlives the workers; each of them has a {@link WorkerOutput} of its own, and takes a file for exactly as long as it
 * writes.
 */
import type { Clock, TimeOfDay } from "../../transport/clock.ts";
import type { TryLock } from "../file-lock.ts";
import { LogFile } from "./log-file.ts";
import type { Pace } from "./pace.ts";
import { WorkerOutput } from "./worker-output.ts";

export interface WorkerLogOptions {
  /** The file, if it is free. */
  readonly path: string;
  readonly tryLock: TryLock;
  readonly clock: Clock;
  readonly timeOfDay: TimeOfDay;
  readonly pace: Pace;
  /** Told when the file begins to take no more. */
  onUnwritable(path: string, error: unknown): void;
}

const tailLinesMax = 40;

export class WorkerLog {
  readonly #options: WorkerLogOptions;
  #file: LogFile;
  #output: WorkerOutput | undefined;

  constructor(options: WorkerLogOptions) {
    this.#options = options;
    this.#file = new LogFile(options.path, options.tryLock);
  }

  /** The file of the current worker, or of the last one. */
  get path(): string {
    return this.#file.path;
  }

  /** The last lines that the current worker wrote, or the last one did, without time and process id. */
  tail(lines = tailLinesMax): string {
    const text = this.#output?.tail.text().trimEnd() ?? "";
    return text.split("\n").slice(-lines).join("\n");
  }

  /** Takes a file for the next worker. Throws where there can be none. */
  open(): WorkerOutput {
    const { path, tryLock, ...options } = this.#options;
    // A file of its own: the last one may still wait for a disk that hangs.
    const file = new LogFile(path, tryLock);
    file.open();
    this.#file = file;
    this.#output = new WorkerOutput({ ...options, file });
    return this.#output;
  }
}
