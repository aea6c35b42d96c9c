/**
 * A pack that this host has opened: what its nodes are, calls to them, and events. Holds no state of the pack's.
 */
import { decode } from "../transport/codec.ts";
import {
  type LogRecord,
  logEvent,
  logEventSchema,
  type OpenResult,
  type PackDescription,
  type PrepareResult,
  packDescriptionSchema,
  prepareResultSchema,
  reservedEventPrefix,
  validate,
} from "../transport/control.ts";
import { AirlockError } from "../transport/errors.ts";
import { RawValue } from "../transport/values.ts";
import type { CallOptions } from "./call-options.ts";
import { HeldArrays } from "./memory/held-arrays.ts";
import type { EventListener } from "./pack-listeners.ts";
import type { PackWorkers } from "./pack-workers.ts";
import type { ReadBody } from "./received-body.ts";

/** What a pack needs of the connection that it was opened on. */
export interface PackServer {
  callServer(method: string, parameters: object, options?: CallOptions): Promise<unknown>;
}

export class Pack {
  readonly name: string;
  /** The pack's folder, absolute. */
  readonly folder: string;
  /** What the manifest asks for that is not carried out yet. */
  readonly warnings: readonly string[];
  /** The most workers that it has at a time: so many of its synchronous nodes run side by side. */
  readonly workersMax: number;
  /** Whether each call of a node has a process of its own. */
  readonly isFresh: boolean;
  readonly #server: PackServer;
  readonly #workers: PackWorkers;
  readonly #number: number;

  /** Use `Airlock.open`. */
  constructor(server: PackServer, workers: PackWorkers, opened: OpenResult) {
    this.#server = server;
    this.#workers = workers;
    this.#number = opened.pack;
    this.workersMax = opened.workers.length;
    this.isFresh = opened.fresh_process;
    this.name = opened.name;
    this.folder = opened.folder;
    this.warnings = opened.warnings;
  }

  /** Makes the pack's environment, where that was not done yet. A first call does so too. */
  async prepare(options: CallOptions = {}): Promise<PrepareResult> {
    const answer = await this.#server.callServer("prepare", { pack: this.#number }, options);
    return validate(prepareResultSchema, answer, "answer to prepare");
  }

  /** What a worker of the pack tells of itself and its nodes; starts one where none is running. */
  async describe(options: CallOptions = {}): Promise<PackDescription> {
    const answer = await this.#call("describe", [], {}, options, decode);
    return validate(packDescriptionSchema, answer, `description by pack ${this.name}`);
  }

  /**
   * Calls a node with its inputs.
   *
   * Functions, iterables and what `remote` opened stay here, and the node gets stand-ins of them; what a node returns
   * that has no form of its own stays there, and arrives as a `RemoteFunction`, a `RemoteObject` or an async iterable.
   *
   * @returns what the node's function returned: of a V1 node, a `Tuple` of its outputs.
   * @throws AirlockError `remote_exception` with the exception where the node raised one, `worker_died` where its process
   * ended, or whatever kept the call from being made.
   */
  call(node: string, inputs: Record<string, unknown> = {}, options: CallOptions = {}): Promise<unknown> {
    return this.#call("run", [node], inputs, options, decode);
  }

  /** As {@link call}, but gives the result as it came; to be passed on, to any pack, without a change of type. */
  callRaw(node: string, inputs: Record<string, unknown> = {}, options: CallOptions = {}): Promise<RawValue> {
    return this.#call("run", [node], inputs, options, (value, references, arrays) => {
      if (arrays instanceof HeldArrays) arrays.keep();
      return references?.hold(value, arrays) ?? new RawValue(value, undefined, arrays);
    });
  }

  #call<T>(
    method: string,
    args: readonly unknown[],
    keywords: Record<string, unknown>,
    options: CallOptions,
    read: ReadBody<T>,
  ): Promise<T> {
    return this.#workers.call({ method, args, keywords, options, read });
  }

  /** Tells the workers that run something that they don't answer; nobody hears it where none does. Settles once it has left. */
  async emit(name: string, value: unknown = null): Promise<void> {
    await this.#workers.emit(unreserved(name), value);
  }

  /**
   * Listens to what the pack's workers emit under a name.
   *
   * @returns what ends it.
   */
  on(name: string, listener: EventListener): () => void {
    return this.#workers.on(unreserved(name), listener);
  }

  /**
   * Listens to what the pack logs by Python's `logging`, with level and logger name; its log file has it too.
   *
   * @param listener gets a record, and how many before it were dropped because the pack logged faster than they could
   * be sent.
   * @returns what ends it.
   */
  onLog(listener: (record: LogRecord, dropped: number) => unknown): () => void {
    return this.#workers.on(logEvent, (value) => {
      const { records, dropped } = validate(logEventSchema, value, `log records of pack ${this.name}`);
      for (const [index, record] of records.entries()) listener(record, index === 0 ? dropped : 0);
    });
  }

  /**
   * Listens to the server: a worker of this pack has ended, whatever the reason; the next call starts a fresh one.
   * Not an event by name, because a pack may emit any name.
   *
   * @returns what ends it.
   */
  onWorkerEnded(listener: () => unknown): () => void {
    return this.#workers.onWorkerEnded(listener);
  }

  /** Ends the pack's workers. Opening the folder again gives a fresh one. */
  close(): Promise<void> {
    return this.#workers.close();
  }
}

function unreserved(name: string): string {
  if (!name.startsWith(reservedEventPrefix)) return name;
  const hint = `choose one without "${reservedEventPrefix}"`;
  throw new AirlockError("bad_request", `the event name ${JSON.stringify(name)} is reserved`, { hint });
}
