/**
 * Gathers what is sent while one event is handled, so that each connection writes once for all of it.
 *
 * A write is a system call and wakes the process at the other end; a chunk that a busy peer sends holds dozens of
 * frames for the same destination. Nothing is held back beyond the event, so nothing waits for a batch to fill.
 */

/** What takes part: a connection, with frames that it has queued. */
export interface Flushable {
  flush(): void;
}

export class WriteBatch {
  readonly #queued: Flushable[] = [];
  #isOpen = false;

  /** Whether an event is being handled: what is sent now is to be queued, and {@link add}ed. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** To be called before an event is handled. */
  begin(): void {
    this.#isOpen = true;
  }

  /** Has `connection` flushed when the event is over; to be called once between flushes. */
  add(connection: Flushable): void {
    this.#queued.push(connection);
  }

  /** To be called when the event was handled. */
  end(): void {
    // Writing may have more sent, credit above all: the list grows while it is walked.
    for (let index = 0; index < this.#queued.length; index++) this.#queued[index]?.flush();
    this.#queued.length = 0;
    this.#isOpen = false;
  }
}
