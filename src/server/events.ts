/**
 * What a server tells its embedder while it runs. Values, not log lines: the command line prints them, a launcher may
 * count them.
 */
import type { AirlockError } from "../transport/errors.ts";

export type ServerEvent =
  | {
      readonly type: "peer_connected";
      readonly peer: number;
      readonly role: "host" | "worker";
      /** A host's name for itself; a worker's pack. */
      readonly name: string;
      readonly pid: number;
    }
  | {
      readonly type: "peer_closed";
      readonly peer: number;
      readonly name: string;
      readonly cause: AirlockError | undefined;
    }
  | { readonly type: "peer_refused"; readonly pid: number; readonly cause: AirlockError }
  | { readonly type: "worker_started"; readonly pack: string; readonly pid: number; readonly startMs: number }
  /** The torch that was to be imported as the server starts was not; packs that share it may fail for the same reason. */
  | { readonly type: "torch_not_imported"; readonly python: string; readonly reason: string }
  /** The worker imports its torch itself, which takes seconds: why it could not be forked from a process that has it. */
  | { readonly type: "worker_not_forked"; readonly pack: string; readonly reason: string }
  /** Hosts and workers can't have torch make tensors in shared memory, and copy what they send: why. */
  | { readonly type: "nursery_missing"; readonly reason: string }
  | {
      readonly type: "worker_ended";
      readonly pack: string;
      readonly pid: number;
      readonly exit: string;
      readonly expected: boolean;
    }
  /** A log's file takes no more lines. Told once for each worker, however many lines are lost. */
  | { readonly type: "log_unwritable"; readonly pack: string; readonly path: string; readonly reason: string }
  /** The worker has not said how it is for longer than a heartbeat; native code that holds the interpreter's lock can't. */
  | { readonly type: "worker_silent"; readonly pack: string; readonly pid: number }
  | { readonly type: "worker_answers"; readonly pack: string; readonly pid: number }
  /** The state that the worker before has left could not be given to this one, which begins without. */
  | { readonly type: "restore_failed"; readonly pack: string; readonly pid: number; readonly reason: AirlockError }
  /** Too many of its workers died: none is started until somebody says so, or the pack is edited. */
  | { readonly type: "pack_held"; readonly pack: string; readonly reason: AirlockError };

export type OnServerEvent = (event: ServerEvent) => void;

/** The embedder's listener, made harmless: what it throws becomes a warning of this process and disturbs no peer. */
export function guardedListener(listener: OnServerEvent): OnServerEvent {
  return (event) => {
    try {
      listener(event);
    } catch (error) {
      const thrown = error instanceof Error ? (error.stack ?? error.message) : String(error);
      process.emitWarning(`the listener for server events threw on ${event.type}: ${thrown}`, "AirlockWarning");
    }
  };
}
