/**
 * Who listens to a pack: to what its workers emit, and to their ends. All workers of a pack have the same listeners.
 */
import { runWithin } from "./incoming-call.ts";

/** Told what a worker emits. What it throws is nobody's answer, and ends up as an unhandled rejection. */
export type EventListener = (value: unknown) => unknown;

export class PackListeners {
  readonly #byName = new Map<string, Set<EventListener>>();
  readonly #ofEnds = new Set<() => unknown>();

  /** @returns what ends it. */
  on(name: string, listener: EventListener): () => void {
    const listeners = this.#byName.get(name) ?? new Set();
    this.#byName.set(name, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /** @returns what ends it. */
  onWorkerEnded(listener: () => unknown): () => void {
    this.#ofEnds.add(listener);
    return () => void this.#ofEnds.delete(listener);
  }

  /** A worker has emitted something. */
  tell(name: string, value: unknown): void {
    notify(this.#byName.get(name), value);
  }

  /** A worker has ended. */
  tellEnd(): void {
    notify(this.#ofEnds, undefined);
  }
}

function notify(listeners: ReadonlySet<EventListener> | undefined, value: unknown): void {
  for (const listener of listeners ?? []) void runWithin(undefined, async () => await listener(value));
}
