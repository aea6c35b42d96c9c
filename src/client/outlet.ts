/**
 * Where a channel's frames go: a queue in front of a connection that is full, from which a frame can still be taken back.
 *
 * Invariant: frames leave in the order in which they were given. The queue is bounded by what callers await: nobody sends
 * on behalf of somebody who doesn't wait.
 */
import type { Connection } from "../transport/connection.ts";
import type { Frame } from "../transport/frame.ts";

export interface Outlet {
  /** @param onLeft told once the frame can't be taken back any more: at once, where nothing is in its way. */
  send(frame: Frame, onLeft?: () => void): void;
  /** Takes back a frame that has not left; false where it has, in part or whole. */
  withdraw(frame: Frame): boolean;
}

/** A frame that has not left yet. */
export interface Waiting {
  readonly frame: Frame;
  readonly onLeft: (() => void) | undefined;
}

/** Takes a frame out of a queue; false where it isn't there. */
export function takeOut(queue: Waiting[], frame: Frame): boolean {
  const index = queue.findIndex((waiting) => waiting.frame === frame);
  if (index >= 0) queue.splice(index, 1);
  return index >= 0;
}

/** Gives a connection one frame more whenever the kernel has taken all before. */
export class StreamOutlet implements Outlet {
  readonly #connection: Pick<Connection, "send" | "outboxBytes">;
  readonly #queue: Waiting[] = [];

  constructor(connection: Pick<Connection, "send" | "outboxBytes">) {
    this.#connection = connection;
  }

  send(frame: Frame, onLeft?: () => void): void {
    this.#queue.push({ frame, onLeft });
    this.flush();
  }

  withdraw(frame: Frame): boolean {
    return takeOut(this.#queue, frame);
  }

  /** To be called when the connection may take frames again. */
  flush(): void {
    while (this.#connection.outboxBytes === 0) {
      const next = this.#queue.shift();
      if (next === undefined) return;
      this.#connection.send(next.frame);
      next.onLeft?.();
    }
  }
}
