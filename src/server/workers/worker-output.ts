/**
 * What one worker writes to stdout and stderr, on its way into a file: every line with the time and its process id.
 *
 * Invariant: what the worker wrote before it ended is in the file, and in {@link WorkerOutput.tail}, once {@link
 * WorkerOutput.end} has settled. A file that takes no more costs lines and nothing else: that is told once, and how many
 * there were stands in the file as soon as it takes lines again. Owns the file and the pipe.
 */
import type { Clock, TimeOfDay, Timer } from "../../transport/clock.ts";
import { Tail } from "../tail.ts";
import type { LogFile } from "./log-file.ts";
import { LogLines } from "./log-lines.ts";
import type { Pace } from "./pace.ts";
import { PipeReader } from "./pipe-reader.ts";

/** How long a line may wait for its end. */
const partialLineMsMax = 1_000;
/** How long the rest of a dead worker's output may take: a child that got away may hold the pipe, a disk may hang. */
const endMsMax = 1_000;
/** What is kept of the last lines. */
const tailCharsMax = 8192;

export interface WorkerOutputOptions {
  readonly file: LogFile;
  readonly clock: Clock;
  readonly timeOfDay: TimeOfDay;
  readonly pace: Pace;
  /** Told when the file begins to take no more. */
  onUnwritable(path: string, error: unknown): void;
}

export class WorkerOutput {
  /** The last that the worker wrote, without stamps. */
  readonly tail = new Tail(tailCharsMax);
  readonly #options: WorkerOutputOptions;
  #pid = 0;
  #pipe: PipeReader | undefined;
  /** Settles when the pipe is at its end. */
  #read: Promise<void> = Promise.resolve();
  /** Settles when all that was given to the file so far is written, or lost. */
  #written: Promise<void> = Promise.resolve();
  /** Lines that the file did not take, since it last took any. */
  #linesLost = 0;

  constructor(options: WorkerOutputOptions) {
    this.#options = options;
  }

  /** Writes down what comes out of a pipe whose other end the process has as descriptors 1 and 2. To be called once. */
  follow(descriptor: number, pid: number): void {
    this.#pid = pid;
    this.#pipe = new PipeReader(descriptor);
    this.#read = this.#readAll(this.#pipe);
  }

  async #readAll(pipe: PipeReader): Promise<void> {
    const { clock, pace } = this.#options;
    const lines = new LogLines();
    let timer: Timer | undefined;
    for (;;) {
      const chunk = await pipe.read();
      if (chunk === undefined) break;
      await pace.turn();
      pace.work(() => this.#take(lines.take(chunk)));
      timer?.cancel();
      timer = lines.hasPartial ? clock.after(partialLineMsMax, () => this.#take(lines.flush())) : undefined;
      // A slow disk holds back the worker that writes so much, and nobody else.
      await this.#written;
    }
    timer?.cancel();
    this.#take(lines.end());
  }

  #take(lines: readonly string[]): void {
    if (lines.length === 0) return;
    this.tail.write(`${lines.join("\n")}\n`);
    this.#write(lines);
  }

  #write(lines: readonly string[]): void {
    const stamp = `${this.#options.timeOfDay().toISOString()} ${this.#pid}`;
    // An empty line needs no stamp, and a pack that writes nothing else would fill the disk with stamps.
    const text = lines.map((line) => (line === "" ? "\n" : `${stamp} ${line}\n`)).join("");
    this.#written = this.#written.then(() => this.#append(text, lines.length, stamp));
  }

  async #append(text: string, count: number, stamp: string): Promise<void> {
    const { file, onUnwritable } = this.#options;
    const lost = this.#linesLost;
    // The last line that was tried may have been cut short.
    const said = lost === 0 ? "" : `\n${stamp} airlock: ${lost} lines could not be written here\n`;
    try {
      await file.append(Buffer.from(said + text));
      this.#linesLost = 0;
    } catch (error) {
      this.#linesLost += count;
      if (lost === 0) onUnwritable(file.path, error);
    }
  }

  /**
   * To be called when the process has ended, or was never started. Settles when all that it wrote is in the log, and
   * behind it its `stack`, which {@link tail} leaves out.
   */
  async end(stack?: string): Promise<void> {
    const { promise: isLate, resolve } = Promise.withResolvers<void>();
    const timer = this.#options.clock.after(endMsMax, resolve);
    await Promise.race([this.#read, isLate]);
    await this.#pipe?.close();
    const written = this.#read.then(() => {
      if (stack !== undefined) this.#write(stack.trimEnd().split("\n"));
      return this.#written;
    });
    // Not closed under a write that is on its way: its descriptor may be another's a moment later.
    const closed = written.then(() => this.#options.file.close());
    await Promise.race([closed, isLate]);
    timer.cancel();
  }
}
