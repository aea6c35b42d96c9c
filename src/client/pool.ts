/**
 * A pack's workers, where there are several, where each call is to have a process of its own, or where a node may be
 * called again: brings each call to one of them.
 *
 * Which one is {@link WorkerChoice}'s to say. Invariant: a call is made once, and once more only where its node says that
 * it may be, its worker died under it, and it held no references, which may have been used. Twin of
 * `worker/src/comfy_airlock/host/pool.py`.
 */
import type { Clock, Timer } from "../transport/clock.ts";
import type { OpenResult } from "../transport/control.ts";
import { deadlineExceeded } from "../transport/deadline.ts";
import { AirlockError } from "../transport/errors.ts";
import { RawValue } from "../transport/values.ts";
import { callInProgress, type IncomingCall, runWithin } from "./incoming-call.ts";
import type { EventListener } from "./pack-listeners.ts";
import { isDeath, type PackPeer } from "./pack-peer.ts";
import type { PackWorkers } from "./pack-workers.ts";
import type { PairCall } from "./pair.ts";
import { originOf } from "./stand-ins.ts";
import { type ChoiceRequest, WorkerChoice } from "./worker-choice.ts";

/** What a pack's manifest says of its workers. */
export type PoolRules = Pick<OpenResult, "workers" | "fresh_process" | "nodes">;

export interface PoolOptions {
  readonly name: string;
  readonly rules: PoolRules;
  /** One for each worker slot, the pack's own first. */
  readonly peers: readonly [PackPeer, ...PackPeer[]];
  readonly clock: Clock;
  readonly graceMs: number;
  /** Has the server end a slot's worker; settles when that is gone. */
  retire(peer: number): Promise<unknown>;
  /** Stand-ins keep their process until they are garbage, which nobody may look for while all is still. */
  collectGarbage(): void;
}

/** A call that waits for a slot. */
interface Waiting {
  readonly request: ChoiceRequest;
  readonly resolve: (index: number) => void;
}

/** How often garbage is looked for while calls wait for processes that nothing but stand-ins may hold. */
const collectMs = 1_000;

/** Whether a pack's calls have to be brought to their workers: mostly there is one, which takes them all. */
export function needsPool({ workers, fresh_process, nodes }: PoolRules): boolean {
  return workers.length > 1 || fresh_process || Object.values(nodes).some(({ idempotent }) => idempotent);
}

export class Pool implements PackWorkers {
  readonly rules: PoolRules;
  readonly #options: PoolOptions;
  readonly #choice: WorkerChoice;
  /** In the order in which they came. */
  readonly #waiting = new Set<Waiting>();
  #collecting: Timer | undefined;

  constructor(options: PoolOptions) {
    const { rules, peers } = options;
    this.rules = rules;
    this.#options = options;
    this.#choice = new WorkerChoice({
      workers: peers.length,
      isFresh: rules.fresh_process,
      sticky: new Set(Object.keys(rules.nodes).filter((node) => rules.nodes[node]?.sticky)),
    });
    for (const [index, peer] of peers.entries()) this.#watch(peer, index);
  }

  #watch(peer: PackPeer, index: number): void {
    peer.watch({
      began: () => this.#choice.begin(index),
      ended: (died) => this.#ended(index, died),
      released: () => this.#settle(index),
      workerEnded: () => this.#choice.workerEnded(index),
    });
  }

  async call<T>(call: PairCall<T>): Promise<T> {
    const { deadlineMs } = call.options;
    const untilMs = deadlineMs === undefined ? undefined : this.#options.clock.nowMs() + deadlineMs;
    const request = this.#requestOf(call);
    const index = this.#choice.take(request) ?? (await this.#turn(request, call));
    let died = false;
    try {
      return await this.#callAt(this.#peer(index), call, untilMs);
    } catch (error) {
      died = isDeath(error);
      throw error;
    } finally {
      this.#ended(index, died);
    }
  }

  #requestOf({ method, args, keywords }: PairCall<unknown>): ChoiceRequest {
    const [node] = args;
    return {
      node: method === "run" ? String(node) : undefined,
      owners: this.#ownersOf(keywords),
      within: this.#slotOf(callInProgress()),
    };
  }

  /** The slots in whose workers objects live that are among the inputs, or in lists of inputs. */
  #ownersOf(inputs: Record<string, unknown>): number[] {
    const tables = new Set<object>();
    for (const value of Object.values(inputs).flat()) {
      for (const object of value instanceof RawValue ? (value.references?.all() ?? []) : [value]) {
        const table = isObject(object) ? originOf(object)?.table : undefined;
        if (table !== undefined) tables.add(table);
      }
    }
    if (tables.size === 0) return [];
    return this.#indices((peer) => peer.current !== undefined && tables.has(peer.current.references));
  }

  /** Where the call waits that this code runs for. */
  #slotOf(within: IncomingCall | undefined): number | undefined {
    if (within === undefined) return undefined;
    const [index] = this.#indices((peer) => peer.current !== undefined && within.nearestOf(peer.current) !== undefined);
    return index;
  }

  #indices(holds: (peer: PackPeer) => boolean): number[] {
    return [...this.#options.peers.entries()].filter(([, peer]) => holds(peer)).map(([index]) => index);
  }

  #peer(index: number): PackPeer {
    const peer = this.#options.peers[index];
    if (peer === undefined) throw new RangeError(`there is no worker slot ${index}`);
    return peer;
  }

  async #callAt<T>(peer: PackPeer, call: PairCall<T>, untilMs: number | undefined): Promise<T> {
    let hasReferences = false;
    const onEncoded = (has: boolean): void => {
      hasReferences = has;
    };
    try {
      return await peer.call({ ...this.#timed(call, untilMs), onEncoded });
    } catch (error) {
      if (hasReferences || !this.#mayRepeat(call, error)) throw this.#told(error, call, untilMs);
    }
    try {
      return await peer.call(this.#timed(call, untilMs));
    } catch (error) {
      throw this.#told(error, call, untilMs);
    }
  }

  #mayRepeat({ method, args: [node] }: PairCall<unknown>, error: unknown): boolean {
    if (method !== "run" || this.rules.nodes[String(node)]?.idempotent !== true) return false;
    // A node's callback may have been told of the death of another pack's worker.
    return isDeath(error) && [undefined, this.#options.name].includes((error as AirlockError).details.pack);
  }

  /** The call with the time that it has left. */
  #timed<T>(call: PairCall<T>, untilMs: number | undefined): PairCall<T> {
    if (untilMs === undefined) return call;
    const deadlineMs = Math.ceil(untilMs - this.#options.clock.nowMs());
    if (deadlineMs <= 0) throw this.#overdue(call);
    return { ...call, options: { ...call.options, deadlineMs } };
  }

  /** An error as the caller is told it: of the deadline that it gave, not of what was left of that. */
  #told(error: unknown, call: PairCall<unknown>, untilMs: number | undefined): unknown {
    const isLate = error instanceof AirlockError && error.code === "deadline_exceeded";
    return isLate && untilMs !== undefined && this.#options.clock.nowMs() >= untilMs ? this.#overdue(call) : error;
  }

  #overdue({ options }: PairCall<unknown>): AirlockError {
    const { name, graceMs } = this.#options;
    return deadlineExceeded({ pack: name, deadlineMs: options.deadlineMs ?? 0, callTimeout: undefined, graceMs });
  }

  /** Waits for a slot; in vain where the call is cancelled or its time is up before. */
  async #turn(request: ChoiceRequest, call: PairCall<unknown>): Promise<number> {
    const { clock } = this.#options;
    const { signal, deadlineMs } = call.options;
    const within = callInProgress();
    const signals = [signal, within?.signal].filter((each) => each !== undefined);
    for (const each of signals) each.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    const waiting: Waiting = { request, resolve };
    const abandon = (event: Event): void => reject((event.target as AbortSignal).reason);
    for (const each of signals) each.addEventListener("abort", abandon, { once: true });
    const timer = deadlineMs === undefined ? undefined : clock.after(deadlineMs, () => reject(this.#overdue(call)));
    this.#waiting.add(waiting);
    this.#collect();
    try {
      return await promise;
    } finally {
      this.#waiting.delete(waiting);
      timer?.cancel();
      for (const each of signals) each.removeEventListener("abort", abandon);
    }
  }

  /** Looks for garbage where calls wait for a process that may be kept by nothing else. */
  #collect(): void {
    if (this.#collecting !== undefined || this.#waiting.size === 0) return;
    if (this.#options.peers.some(holdsObjects)) this.#options.collectGarbage();
    this.#collecting = this.#options.clock.after(collectMs, () => {
      this.#collecting = undefined;
      this.#collect();
    });
  }

  #ended(index: number, died: boolean): void {
    this.#choice.end(index, died);
    this.#settle(index);
  }

  /** Ends a spent worker that nobody needs any more: it has answered, and nothing of it is held. */
  #settle(index: number): void {
    if (!holdsObjects(this.#peer(index)) && this.#choice.retire(index)) void this.#retire(index);
  }

  async #retire(index: number): Promise<void> {
    const { retire } = this.#options;
    // It is done for nobody's call. Where the server can't, the pack was closed or the connection has ended.
    await runWithin(undefined, () => retire(this.#peer(index).peer)).catch(() => undefined);
    this.#peer(index).retired();
    this.#choice.retired(index);
    for (const waiting of this.#waiting) {
      const taken = this.#choice.take(waiting.request);
      if (taken === undefined) return;
      this.#waiting.delete(waiting);
      waiting.resolve(taken);
    }
  }

  async emit(name: string, value: unknown): Promise<void> {
    const running = this.#options.peers.filter((_, index) => this.#choice.isRunning(index));
    await Promise.all(running.map((peer) => peer.emit(name, value)));
  }

  on(name: string, listener: EventListener): () => void {
    return this.#options.peers[0].on(name, listener);
  }

  onWorkerEnded(listener: () => unknown): () => void {
    return this.#options.peers[0].onWorkerEnded(listener);
  }

  async close(): Promise<void> {
    const [first, ...others] = this.#options.peers;
    for (const peer of others) peer.closing();
    await first.close();
  }
}

/** Whether this host holds anything that lives in a worker. */
function holdsObjects({ current }: PackPeer): boolean {
  return current !== undefined && current.references.heldCount > 0;
}

function isObject(value: unknown): value is object {
  return (typeof value === "object" && value !== null) || typeof value === "function";
}
