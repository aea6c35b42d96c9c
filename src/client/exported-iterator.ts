/**
 * An iterator of this process that another one takes items from: in batches, and no further than it is asked to.
 *
 * Items go out in order and once: what was taken for a call that nobody waits for any more goes to the next.
 */
import type { Clock } from "../transport/clock.ts";
import { AirlockError } from "../transport/errors.ts";
import { callInProgress } from "./incoming-call.ts";
import { payloadBytes } from "./payload.ts";

/** A batch is over at this size, or after this time: a slow producer's items arrive one by one. */
const batchBytesMax = 1024 * 1024;
const batchMsMax = 5;
const batchItemsMax = 4096;

export type AnyIterable = Iterable<unknown> | AsyncIterable<unknown> | AnyIterator;
type AnyIterator = Iterator<unknown> | AsyncIterator<unknown>;

export class ExportedIterator {
  readonly #source: AnyIterable;
  readonly #clock: Clock;
  #iterator: AnyIterator | undefined;
  /** Items that were taken and not delivered. */
  #ready: unknown[] = [];
  /** A step that was begun and not finished in time for the last batch. */
  #step: Promise<void> | undefined;
  /** What the producer threw, to be told after the items that came before. */
  #failure: { readonly error: unknown } | undefined;
  #isEnded = false;
  /** Takes wait for one another: an iterator goes one step at a time. */
  #lastTake: Promise<unknown> = Promise.resolve();

  constructor(source: AnyIterable, clock: Clock) {
    this.#source = source;
    this.#clock = clock;
  }

  /** Up to `count` items, at least one unless it has ended; and whether it has. Throws what the producer throws. */
  take(count: unknown): Promise<[items: unknown[], isEnded: boolean]> {
    if (!Number.isSafeInteger(count) || (count as number) < 1) {
      throw new AirlockError("bad_request", "ref_take takes a count of 1 or more");
    }
    const taken = this.#lastTake.then(() => this.#take(Math.min(count as number, batchItemsMax)));
    this.#lastTake = taken.catch(() => undefined);
    return taken;
  }

  async #take(count: number): Promise<[unknown[], boolean]> {
    await this.#fill(count);
    if (callInProgress()?.signal.aborted) return [[], false];
    const items = this.#ready.splice(0, count);
    if (items.length > 0 || this.#failure === undefined) return [items, this.#hasEnded];
    const { error } = this.#failure;
    this.#failure = undefined;
    throw error;
  }

  get #hasEnded(): boolean {
    return this.#isEnded && this.#failure === undefined && this.#ready.length === 0;
  }

  /** Waits for one item, and takes those that follow at once. */
  async #fill(count: number): Promise<void> {
    if (this.#ready.length === 0) await this.#advance();
    const untilMs = this.#clock.nowMs() + batchMsMax;
    const nextTurn = Promise.withResolvers<false>();
    setImmediate(() => nextTurn.resolve(false));
    let bytes = this.#ready.reduce<number>((sum, item) => sum + payloadBytes(item), 0);
    while (this.#ready.length < count && !this.#isEnded && bytes < batchBytesMax && this.#clock.nowMs() < untilMs) {
      const isThere = this.#advance().then(() => true);
      if (!(await Promise.race([isThere, nextTurn.promise]))) return;
      bytes += payloadBytes(this.#ready.at(-1));
    }
  }

  /** Goes on with the step that is under way, or begins one. Never throws: a batch may be over before its last step is. */
  async #advance(): Promise<void> {
    if (this.#isEnded) return;
    this.#step ??= this.#takeStep();
    await this.#step;
    this.#step = undefined;
  }

  async #takeStep(): Promise<void> {
    try {
      this.#iterator ??= iteratorOf(this.#source);
      const { done, value } = await this.#iterator.next();
      if (this.#isEnded) return;
      if (done) this.#isEnded = true;
      else this.#ready.push(value);
    } catch (error) {
      if (!this.#isEnded) this.#failure = { error };
      this.#isEnded = true;
    }
  }

  /** Ends it as `for await` does that is left early. One that is at a step is not waited for. */
  async close(): Promise<void> {
    if (this.#isEnded && this.#ready.length === 0) return;
    this.#isEnded = true;
    this.#ready = [];
    const closed = Promise.resolve((this.#iterator ?? iteratorOf(this.#source)).return?.());
    if (this.#step === undefined) await closed;
    else closed.catch(() => undefined);
  }

  /** Nobody can take from it any more. What was begun is ended; what nobody took from is its maker's. */
  drop(): void {
    if (this.#iterator !== undefined) this.close().catch(() => undefined);
  }
}

function iteratorOf(source: AnyIterable): AnyIterator {
  if (Symbol.asyncIterator in source) return source[Symbol.asyncIterator]();
  return Symbol.iterator in source ? source[Symbol.iterator]() : source;
}
