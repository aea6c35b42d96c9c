/**
 * The workers of a pack as its callers see them, be it one or several. No code.
 */
import type { EventListener } from "./pack-listeners.ts";
import type { PairCall } from "./pair.ts";

export interface PackWorkers {
  /** Calls a method of one of the workers; see `Pair.call`. */
  call<T>(call: PairCall<T>): Promise<T>;
  /** Tells the workers that run something that they don't answer. Settles once it has left. */
  emit(name: string, value: unknown): Promise<void>;
  /** @returns what ends it. */
  on(name: string, listener: EventListener): () => void;
  /** @returns what ends it. */
  onWorkerEnded(listener: () => unknown): () => void;
  /** Has the server end the workers; calls under way fail. */
  close(): Promise<void>;
}
