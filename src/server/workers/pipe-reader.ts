/**
 * The end of a pipe that a worker writes to: chunks in turn, until every writer has closed its end.
 *
 * Invariant: one chunk is read ahead at most, so whoever takes none leaves the rest in the pipe, where its writer waits.
 * Owns the descriptor. A pipe and no socket pair, because programs open /dev/stdout anew.
 */
import { closeSync } from "node:fs";

export class PipeReader {
  readonly #descriptor: number;
  readonly #reader: { read(): Promise<{ value?: Uint8Array | undefined }>; cancel(): Promise<void> };
  #isClosed = false;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
    this.#reader = Bun.file(descriptor).stream().getReader();
  }

  /** The next chunk; undefined at the end, and once it is closed. */
  async read(): Promise<Uint8Array | undefined> {
    try {
      return (await this.#reader.read()).value;
    } catch {
      // It was closed under the read, or the kernel takes no more reads of it: nothing more will come either way.
      return undefined;
    }
  }

  /** Lets go of the pipe; a writer that is left then finds it broken. Safe to call twice. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#reader.cancel().catch(() => undefined);
    closeSync(this.#descriptor);
  }
}
