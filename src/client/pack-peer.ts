/**
 * A pack as a destination: whichever worker runs it at the moment, and how to get there.
 *
 * Invariant: at most one pair is current. A worker that ends takes its pair along, and the next call begins another; a
 * call is never sent twice, but one of which nothing was sent goes to the next.
 */
import type { Clock } from "../transport/clock.ts";
import type { CallTimeout } from "../transport/control.ts";
import { AirlockError, toAirlockError } from "../transport/errors.ts";
import type { Limits } from "../transport/limits.ts";
import type { Channel } from "./channel.ts";
import { runWithin } from "./incoming-call.ts";
import { Line } from "./line.ts";
import { Unsent } from "./outgoing-calls.ts";
import { Pair, type PairCall } from "./pair.ts";
import type { ReferenceIds } from "./references.ts";

/** Told what a worker emits. What it throws is nobody's answer, and ends up as an unhandled rejection. */
export type EventListener = (value: unknown) => unknown;

export interface PackPeerOptions {
  /** The number that the server gave it. */
  readonly peer: number;
  readonly name: string;
  readonly relay: Channel;
  readonly clock: Clock;
  readonly limits: Limits;
  readonly ids: ReferenceIds;
  /** Calls a method of the server. */
  callServer(method: string, parameters: object): Promise<unknown>;
}

export class PackPeer {
  readonly #options: PackPeerOptions;
  #pair: Pair | undefined;
  /** Lines that have not ended, by the pair that they belong to. */
  readonly #lines = new Map<Pair, { readonly line: Line; readonly number: number }>();
  /** Lines that no calls are made over, because the server asked for that. */
  readonly #left = new Set<number>();
  /** The last line that ended. */
  #lastLine: number | undefined;
  readonly #listeners = new Map<string, Set<EventListener>>();
  readonly #endListeners = new Set<() => unknown>();
  /** As it was told when the pack was last opened. */
  callTimeout: CallTimeout | undefined;
  #isClosed = false;
  #ended: AirlockError | undefined;

  constructor(options: PackPeerOptions) {
    this.#options = options;
  }

  /** The pair with the worker that runs now, or is started next. */
  get pair(): Pair {
    this.#pair ??= this.#newPair();
    return this.#pair;
  }

  #newPair(): Pair {
    const { peer, name, relay, clock, limits, ids } = this.#options;
    return new Pair({
      peer,
      name,
      relay,
      relayReferences: () => this.pair.references,
      clock,
      limits,
      ids,
      methods: new Map(),
      callTimeout: () => this.callTimeout,
      onEvent: (event, value) => notify(this.#listeners.get(event), value),
    });
  }

  /** Calls a method of the pack's worker; see {@link Pair.call}. */
  async call<T>(call: PairCall<T>): Promise<T> {
    for (;;) {
      if (this.#ended !== undefined) throw this.#ended;
      try {
        return await this.pair.call(call);
      } catch (error) {
        // The line ended a moment ago, and its worker with it: the relay starts a fresh one.
        if (!(error instanceof Unsent)) throw error;
      }
    }
  }

  async emit(name: string, value: unknown): Promise<void> {
    if (this.#ended !== undefined) throw this.#ended;
    await this.pair.emit(name, value);
  }

  /** @returns what ends it. */
  on(name: string, listener: EventListener): () => void {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /** @returns what ends it. */
  onWorkerEnded(listener: () => unknown): () => void {
    this.#endListeners.add(listener);
    return () => void this.#endListeners.delete(listener);
  }

  /** Takes the line that the server has made to the pack's worker. */
  async takeLine(descriptor: number, number: number): Promise<void> {
    // One that has a line already is about to end: no worker gets two.
    if (this.#pair !== undefined && this.#lines.has(this.#pair)) this.#pair = undefined;
    const { pair } = this;
    const { clock, limits } = this.#options;
    let hasEnded = false;
    const line = await Line.open(pair, {
      descriptor,
      clock,
      limits,
      ending: () => this.#ending(number),
      overdue: () => void this.#callServer("overdue", number).catch(() => undefined),
      onEnd: () => {
        hasEnded = true;
        this.#lineEnded(pair, number);
      },
    });
    if (hasEnded) return;
    if (this.#ended !== undefined) return line.close(this.#ended);
    this.#lines.set(pair, { line, number });
    if (!this.#left.has(number)) pair.useLine(line.channel);
  }

  /** Makes no more calls over a line, and tells the server when those that were made are over: its worker may end. */
  async leaveLine(number: number): Promise<void> {
    this.#left.add(number);
    for (const [pair, { line, number: itsNumber }] of this.#lines) {
      if (itsNumber !== number) continue;
      pair.useLine(undefined);
      await line.channel.calls.none();
    }
    // Where the connection has ended meanwhile, nobody wants to know.
    if (this.#left.has(number)) await this.#callServer("left_line", number).catch(() => undefined);
  }

  /** Makes calls over a line again that was left: its worker goes on. */
  useLine(number: number): void {
    if (!this.#left.delete(number)) return;
    for (const [pair, { line, number: itsNumber }] of this.#lines) {
      if (itsNumber === number) pair.useLine(line.channel);
    }
  }

  #callServer(method: string, line: number): Promise<unknown> {
    // Whatever this comes from, it is done for nobody's call.
    return runWithin(undefined, () => this.#options.callServer(method, { pack: this.#options.peer, line }));
  }

  async #ending(line: number): Promise<AirlockError> {
    // The server has no such pack any more, and this host did that itself.
    if (this.#isClosed) return new AirlockError("cancelled", `the pack ${this.#options.name} was closed`);
    try {
      await this.#callServer("ending", line);
    } catch (error) {
      return toAirlockError(error);
    }
    return new AirlockError("protocol_error", "the server did not say why a worker has ended");
  }

  #lineEnded(pair: Pair, number: number): void {
    this.#lines.delete(pair);
    this.#lastLine = number;
    // One whose line was left held nothing: calls that were made since then wait for the next worker.
    if (!this.#left.delete(number)) this.#endPair(pair);
  }

  /** The server tells that a worker has ended. Its line, where it has one, may still hold what it said before. */
  workerEnded(number: number): void {
    const pair = this.#pair;
    if (pair !== undefined && number !== this.#lastLine && !this.#left.has(number)) {
      this.#pair = undefined;
      if (!this.#lines.has(pair)) this.#endPair(pair);
    }
    notify(this.#endListeners, undefined);
  }

  #endPair(pair: Pair): void {
    if (this.#pair === pair) this.#pair = undefined;
    pair.end(
      new AirlockError("reference_gone", `pack ${this.#options.name}: the worker that this object is of has ended`),
    );
  }

  /** Has the server end the worker; calls under way fail. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#options.callServer("close", { pack: this.#options.peer });
  }

  /** The connection has ended. */
  end(reason: AirlockError): void {
    this.#ended ??= reason;
    for (const { line } of this.#lines.values()) line.close(reason);
    if (this.#pair !== undefined) this.#endPair(this.#pair);
  }
}

function notify(listeners: ReadonlySet<EventListener> | undefined, value: unknown): void {
  for (const listener of listeners ?? []) void runWithin(undefined, async () => await listener(value));
}
