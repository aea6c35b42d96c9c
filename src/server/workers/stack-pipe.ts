/**
 * The Python stacks of one worker: those that it prints when it is asked to, and those of a crash.
 *
 * The worker's faulthandler writes to a pipe of its own, from a signal's handler, so it does also while C code holds the
 * interpreter's lock. What comes unasked is the report of a crash. Invariant: at most one dump is asked for at a time,
 * and what is kept is bounded. Owns the pipe's read end.
 */
import { readFileSync } from "node:fs";
import type { Clock } from "../../transport/clock.ts";
import { AirlockError } from "../../transport/errors.ts";
import type { Pace } from "./pace.ts";
import { PipeReader } from "./pipe-reader.ts";

/** The signal that the worker's faulthandler answers; a real-time one, as packs and libraries use few. Twin of `runtime/stacks.py`. */
const dumpSignal = 61;
/** A dump has no end mark: it is over when nothing more has come for so long. */
const quietMs = 100;
/** How long a worker may take to begin. */
const answerMsMax = 5_000;
/** How long the rest of a dead worker's stack may take: a child that got away may hold the pipe. */
const endMsMax = 500;
/** The stacks of a hundred threads, each a hundred calls deep, which is where faulthandler ends. */
const charsMax = 1024 * 1024;

export interface StackPipeOptions {
  readonly descriptor: number;
  readonly pid: number;
  readonly clock: Clock;
  readonly pace: Pace;
}

export class StackPipe {
  readonly #options: StackPipeOptions;
  readonly #pipe: PipeReader;
  readonly #read: Promise<void>;
  readonly #decoder = new TextDecoder();
  /** What came unasked. */
  #crash = "";
  /** The dump that was asked for. */
  #dump: { text: string; onText: () => void } | undefined;
  #asked: Promise<string> | undefined;

  constructor(options: StackPipeOptions) {
    this.#options = options;
    this.#pipe = new PipeReader(options.descriptor);
    this.#read = this.#readAll();
  }

  /** What the process wrote as it crashed, if it did. */
  get crash(): string | undefined {
    return this.#crash.trim() === "" ? undefined : this.#crash.trim();
  }

  async #readAll(): Promise<void> {
    const { pace } = this.#options;
    for (;;) {
      const chunk = await this.#pipe.read();
      if (chunk === undefined) return;
      await pace.turn();
      pace.work(() => this.#take(this.#decoder.decode(chunk, { stream: true })));
    }
  }

  #take(text: string): void {
    if (this.#dump === undefined) {
      this.#crash = (this.#crash + text).slice(0, charsMax);
      return;
    }
    this.#dump.text = (this.#dump.text + text).slice(0, charsMax);
    this.#dump.onText();
  }

  /**
   * Has the worker print the stacks of its threads. Who asks while that is being done gets the same.
   *
   * @throws AirlockError `bad_request` where the worker does not listen for the signal, which would end it then;
   * `deadline_exceeded` where it does not answer.
   */
  dump(): Promise<string> {
    this.#asked ??= this.#ask().finally(() => {
      this.#asked = undefined;
      this.#dump = undefined;
    });
    return this.#asked;
  }

  async #ask(): Promise<string> {
    const { pid, clock } = this.#options;
    if (!catches(pid, dumpSignal)) {
      const message = `the worker (pid ${pid}) does not listen for the signal that asks for its stacks`;
      throw new AirlockError("bad_request", message, { hint: "it is still starting, or its pack took the signal" });
    }
    const { promise: isOver, resolve } = Promise.withResolvers<void>();
    let timer = clock.after(answerMsMax, resolve);
    const onText = (): void => {
      timer.cancel();
      timer = clock.after(quietMs, resolve);
    };
    const dump = { text: "", onText };
    this.#dump = dump;
    process.kill(pid, dumpSignal);
    await Promise.race([isOver, this.#read]);
    timer.cancel();
    if (dump.text !== "") return dump.text;
    const message = `the worker (pid ${pid}) did not print its stacks within ${answerMsMax / 1000} s`;
    throw new AirlockError("deadline_exceeded", message, { hint: "it is stopped, waits in the kernel, or has ended" });
  }

  /** To be called when the process has ended; settles when all that it wrote was read. */
  async end(): Promise<void> {
    const { promise: isLate, resolve } = Promise.withResolvers<void>();
    const timer = this.#options.clock.after(endMsMax, resolve);
    await Promise.race([this.#read, isLate]);
    timer.cancel();
    await this.#pipe.close();
  }
}

/** Whether a process has a handler for a signal. */
function catches(pid: number, signal: number): boolean {
  try {
    const mask = /^SigCgt:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    return mask !== undefined && ((BigInt(`0x${mask}`) >> BigInt(signal - 1)) & 1n) === 1n;
  } catch {
    return false;
  }
}
