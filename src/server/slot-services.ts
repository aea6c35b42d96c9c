/**
 * What a {@link Slot} needs: of the server around it, and of the pack that it is of. No code, so that a test can be both.
 */
import type { Clock } from "../transport/clock.ts";
import type { CallTimeout, Progress } from "../transport/control.ts";
import type { AirlockError } from "../transport/errors.ts";
import type { Frame } from "../transport/frame.ts";
import type { Limits } from "../transport/limits.ts";
import type { Environment } from "./environments/environments.ts";
import type { PackManifest } from "./environments/manifest.ts";
import type { OnServerEvent } from "./events.ts";
import type { Line } from "./line.ts";
import type { Holdings } from "./segments.ts";
import type { Call, Session } from "./session.ts";
import type { Slot } from "./slot.ts";
import type { Worker } from "./workers/worker.ts";
import type { WorkerProcess } from "./workers/worker-process.ts";

/** What a slot needs of the server around it. */
export interface SlotServices {
  readonly clock: Clock;
  readonly limits: Limits;
  readonly onEvent: OnServerEvent;
  /** Starts a process that will say hello with the worker's token. */
  spawn(slot: Slot, worker: Worker, environment: Environment): Promise<WorkerProcess>;
  /** Expects a hello with the worker's token, or no longer. */
  expect(worker: Worker, slot: Slot): void;
  unexpect(worker: Worker): void;
  deliver(call: Call, frame: Frame, worker: Session): void;
  fail(call: Call, error: AirlockError): void;
  progress(call: Call, progress: Progress): void;
  /** Tells a host what it did not ask for. */
  notify(host: Session, name: string, value: unknown): void;
  /** A worker's session is over; its calls fail with `cause`. */
  leave(session: Session, cause: AirlockError): void;
  /** Calls a worker's method in the server's name. */
  ask(worker: Session, method: string, withinMs?: number, keywords?: object): Promise<unknown>;
  /** Calls that a worker was given over the relay and has not answered. */
  callsOf(worker: Session): number;
  /** Segments that a worker owns. */
  ownedBy(worker: Session): Holdings;
  /** Makes a line between the two, where both can take one. */
  joinByLine(host: Session, worker: Session, peer: number, number: number): Line | undefined;
  /** Memory that would be free without a process, in bytes; undefined where that is not known. */
  pssOf(pid: number): Promise<number | undefined>;
  /** A text that changes when a file of the pack's does. */
  stampOf(folder: string): Promise<string>;
}

/** The pack that a slot is of. */
export interface SlotPack {
  readonly name: string;
  /** The manifest as it is now: the next worker's. */
  readonly manifest: PackManifest;
  /** The time that every call to it has, from when its worker is there. */
  readonly callTimeout: CallTimeout | undefined;
  /** Whom its memory may be passed to: its number, or 0. */
  readonly audience: number;
  /** Aborted, with the reason, when the pack is closed. */
  readonly closing: AbortSignal;
  prepare(onProgress: (progress: Progress) => void): Promise<Environment>;
}
