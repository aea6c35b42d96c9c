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
import type { Memory } from "./memory/memory.ts";
import { PairLeases } from "./memory/pair-leases.ts";
import { Unsent } from "./outgoing-calls.ts";
import { type EventListener, PackListeners } from "./pack-listeners.ts";
import type { PackWorkers } from "./pack-workers.ts";
import { Pair, type PairCall } from "./pair.ts";
import type { ReferenceIds } from "./references.ts";

/** Told of what goes on between this host and one worker slot besides the calls that were chosen for it. */
export interface SlotWatcher {
  /** A call of an object that lives there has begun. */
  began(): void;
  /** It has ended; `died` where that is because the worker did. */
  ended(died: boolean): void;
  /** Objects that live there are not held any more. */
  released(): void;
  workerEnded(): void;
}

export interface PackPeerOptions {
  /** The number that the server gave it. */
  readonly peer: number;
  readonly name: string;
  readonly relay: Channel;
  readonly clock: Clock;
  readonly limits: Limits;
  readonly ids: ReferenceIds;
  /** Missing where this process shares no memory. */
  readonly memory?: Memory | undefined;
  /** Its own by default. */
  readonly listeners?: PackListeners;
  /** Calls a method of the server. */
  callServer(method: string, parameters: object): Promise<unknown>;
}

export class PackPeer implements PackWorkers {
  readonly #options: PackPeerOptions;
  #pair: Pair | undefined;
  /** Lines that have not ended, by the pair that they belong to. */
  readonly #lines = new Map<Pair, { readonly line: Line; readonly number: number }>();
  /** Lines that no calls are made over, because the server asked for that; and what their workers held by then. */
  readonly #left = new Map<number, ReadonlyMap<number, number>>();
  /** The last line that ended. */
  #lastLine: number | undefined;
  /** As it was told when the pack was last opened. */
  callTimeout: CallTimeout | undefined;
  /** Whose memory it may be passed, likewise. */
  audience = 0;
  readonly listeners: PackListeners;
  #watcher: SlotWatcher | undefined;
  #isClosed = false;
  #ended: AirlockError | undefined;

  constructor(options: PackPeerOptions) {
    this.#options = options;
    this.listeners = options.listeners ?? new PackListeners();
  }

  /** The number that the server gave it. */
  get peer(): number {
    return this.#options.peer;
  }

  /** Has `watcher`, and no other, told of what goes on here. */
  watch(watcher: SlotWatcher): void {
    this.#watcher = watcher;
  }

  /** The pair with the worker that runs now; undefined where none was called since the last one ended. */
  get current(): Pair | undefined {
    return this.#pair;
  }

  /** The pair with the worker that runs now, or is started next. */
  get pair(): Pair {
    this.#pair ??= this.#newPair();
    return this.#pair;
  }

  #newPair(): Pair {
    const { peer, name, relay, clock, limits, ids, memory } = this.#options;
    const { audience } = this;
    return new Pair({
      peer,
      name,
      relay,
      relayReferences: () => this.pair.references,
      relayLeases: () => this.pair.leases,
      leases: memory && ((send) => new PairLeases({ memory, peer, name: `pack ${name}`, audience, ...send })),
      clock,
      limits,
      ids,
      methods: new Map(),
      callTimeout: () => this.callTimeout,
      onEvent: (event, value) => this.listeners.tell(event, value),
      counted: (call) => this.#counted(call),
      onReleased: () => this.#watcher?.released(),
    });
  }

  /** Has the watcher count a call of an object. */
  async #counted<T>(call: () => Promise<T>): Promise<T> {
    const watcher = this.#watcher;
    watcher?.began();
    let died = false;
    try {
      return await call();
    } catch (error) {
      died = isDeath(error);
      throw error;
    } finally {
      watcher?.ended(died);
    }
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

  on(name: string, listener: EventListener): () => void {
    return this.listeners.on(name, listener);
  }

  onWorkerEnded(listener: () => unknown): () => void {
    return this.listeners.onWorkerEnded(listener);
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
    this.#left.set(number, new Map());
    for (const [pair, { line, number: itsNumber }] of this.#lines) {
      if (itsNumber !== number) continue;
      pair.useLine(undefined);
      this.#left.set(number, pair.references.mark());
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
    const mark = this.#left.get(number);
    this.#left.delete(number);
    if (mark === undefined) this.#endPair(pair);
    // Calls that were made since it was left wait for the next worker, and what they hold is that one's.
    else {
      pair.references.endMarked(mark);
      if (pair.leases !== undefined) pair.leases.replaced(this.#options.relay.calls.placedFor(pair.leases));
    }
  }

  /** The server tells that a worker has ended. Its line, where it has one, may still hold what it said before. */
  workerEnded(number: number): void {
    const pair = this.#pair;
    if (pair !== undefined && number !== this.#lastLine && !this.#left.has(number)) {
      this.#pair = undefined;
      if (!this.#lines.has(pair)) this.#endPair(pair);
    }
    this.#watcher?.workerEnded();
    this.listeners.tellEnd();
  }

  #endPair(pair: Pair): void {
    if (this.#pair === pair) this.#pair = undefined;
    this.#handLeases(pair);
    pair.end(
      new AirlockError("reference_gone", `pack ${this.#options.name}: the worker that this object is of has ended`),
    );
    this.#watcher?.released();
  }

  /** Calls that wait for the next worker are that one's, with the memory that they name. */
  #handLeases({ leases }: Pair): void {
    if (leases === undefined || this.#ended !== undefined) return;
    const waiting = this.#options.relay.calls.placedFor(leases);
    if (waiting.length > 0) leases.end(waiting, this.pair.leases);
  }

  /** The server tells that it has ended the worker. What that held of this process's is nobody's now. */
  retired(): void {
    if (this.#pair !== undefined) this.#endPair(this.#pair);
  }

  /** The pack is about to be closed: what its workers leave unanswered is cancelled. */
  closing(): void {
    this.#isClosed = true;
  }

  /** Has the server end the pack's workers; calls under way fail. */
  async close(): Promise<void> {
    this.closing();
    await this.#options.callServer("close", { pack: this.#options.peer });
  }

  /** The connection has ended. */
  end(reason: AirlockError): void {
    this.#ended ??= reason;
    for (const { line } of this.#lines.values()) line.close(reason);
    if (this.#pair !== undefined) this.#endPair(this.#pair);
  }
}

/** Whether a call failed because its worker died. */
export function isDeath(error: unknown): boolean {
  return error instanceof AirlockError && error.code === "worker_died";
}
