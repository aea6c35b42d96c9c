/**
 * What objects of other processes are here: functions, objects and async iterables that call their owner.
 *
 * A stand-in holds no value of its owner's. As long as it is reachable, its owner keeps the object.
 */
import * as v from "valibot";
import { validate } from "../transport/control.ts";
import type { ReferenceKind } from "../transport/references.ts";
import type { CallOptions } from "./call-options.ts";
import { splitKeywords } from "./keywords.ts";

/** A function of another process. Each call travels there; keyword arguments are a `Keywords` at the end. */
export interface RemoteFunction {
  (...args: unknown[]): Promise<unknown>;
  /** The same function, with options for each call. */
  options(options: CallOptions): (...args: unknown[]) => Promise<unknown>;
}

/** The identity behind a stand-in: which object of which process it names, and how that is reached. */
export interface Origin {
  /** The table of references that it belongs to. */
  readonly table: object;
  readonly id: number;
  readonly kind: ReferenceKind;
  readonly type: string;
  /** Whether its owner has ended. */
  readonly isGone: boolean;
  /**
   * Calls one of the `ref_` methods of PROTOCOL.md for this object.
   *
   * @param standIn kept reachable until the answer is there.
   * @throws AirlockError `reference_gone` where its owner has ended.
   */
  call(
    method: string,
    args: readonly unknown[],
    keywords: Record<string, unknown>,
    standIn: object,
    options?: CallOptions,
  ): Promise<unknown>;
}

/** Under which a stand-in, function or object, carries its origin. Known to this file only. */
const originKey = Symbol("origin");

/** The origin of a stand-in; undefined for anything else. */
export function originOf(value: object): Origin | undefined {
  return (value as { readonly [originKey]?: Origin })[originKey];
}

export function standInFor(origin: Origin): object {
  if (origin.kind === "function") return remoteFunction(origin);
  if (origin.kind === "object") return new RemoteObject(origin);
  return new RemoteIterator(origin);
}

function remoteFunction(origin: Origin): RemoteFunction {
  const withOptions =
    (options: CallOptions) =>
    async (...args: unknown[]): Promise<unknown> => {
      const [positional, keywords] = splitKeywords(args);
      return await origin.call("ref_call", positional, keywords, standIn, options);
    };
  const standIn = Object.assign(withOptions({}), { options: withOptions, [originKey]: origin });
  Object.defineProperty(standIn, "name", { value: origin.type });
  return standIn;
}

/** An object of another process: its public attributes and methods. */
export class RemoteObject {
  readonly [originKey]: Origin;

  /** Made where one arrives. */
  constructor(origin: Origin) {
    this[originKey] = origin;
  }

  /** What the object is, as `module:qualified.name`. */
  get type(): string {
    return this[originKey].type;
  }

  /**
   * Calls a method. Keyword arguments are a `Keywords` at the end.
   *
   * @throws AirlockError `bad_request` for a name that is not to be reached, `reference_gone`, or what the method raised.
   */
  async invoke(name: string, ...args: unknown[]): Promise<unknown> {
    return await this.#invoke(name, args, {});
  }

  /** As {@link invoke}, with options for the call. */
  async invokeWith(options: CallOptions, name: string, ...args: unknown[]): Promise<unknown> {
    return await this.#invoke(name, args, options);
  }

  async #invoke(name: string, args: readonly unknown[], options: CallOptions): Promise<unknown> {
    const [positional, keywords] = splitKeywords(args);
    return await this[originKey].call("ref_method", [name, ...positional], keywords, this, options);
  }

  /** The value of an attribute; a method is a function that invokes it. Throws as {@link invoke}. */
  async get(name: string, options: CallOptions = {}): Promise<unknown> {
    const answer = await this[originKey].call("ref_get", [name], {}, this, options);
    const [isMethod, value] = validate(attributeSchema, answer, "answer to ref_get");
    return isMethod ? (...args: unknown[]) => this.invoke(name, ...args) : value;
  }
}

/** What `ref_get` answers: a value, or that it is a method. */
const attributeSchema = v.strictTuple([v.picklist([0, 1]), v.unknown()]);
/** What `ref_take` answers: items, and whether no more will come. */
const takenSchema = v.strictTuple([v.array(v.unknown()), v.boolean()]);

/** How many items are asked for at a time: as many as are ready by then come in one answer. */
const takeCount = 64;

/** An iterator or async iterator of another process. Whoever stops early has it closed there, as `for await` does. */
export class RemoteIterator implements AsyncIterableIterator<unknown, undefined> {
  readonly [originKey]: Origin;
  /** Items that have come and were not asked for yet. */
  #items: unknown[] = [];
  #isEnded = false;
  /** Steps are taken one after the other. */
  #lastStep: Promise<unknown> = Promise.resolve();
  readonly #closing = new AbortController();

  /** Made where one arrives. */
  constructor(origin: Origin) {
    this[originKey] = origin;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The next item. Throws what the producer raised, after the items that came before that. */
  next(): Promise<IteratorResult<unknown, undefined>> {
    const step = this.#lastStep.then(() => this.#step());
    this.#lastStep = step.catch(() => undefined);
    return step;
  }

  async #step(): Promise<IteratorResult<unknown, undefined>> {
    if (this.#items.length === 0 && !this.#isEnded) await this.#take();
    return this.#items.length > 0 ? { done: false, value: this.#items.shift() } : { done: true, value: undefined };
  }

  async #take(): Promise<void> {
    const { signal } = this.#closing;
    try {
      const answer = await this[originKey].call("ref_take", [takeCount], {}, this, { signal });
      const [items, isEnded] = validate(takenSchema, answer, "answer to ref_take");
      this.#isEnded = isEnded;
      this.#items = items;
    } catch (error) {
      this.#isEnded = true;
      // Closed while the producer was at work: that is an end like any other.
      if (!signal.aborted) throw error;
    }
  }

  /** Closes the iterator where it lives, and drops what has come and was not asked for. */
  async return(): Promise<IteratorResult<unknown, undefined>> {
    const wasEnded = this.#isEnded;
    this.#isEnded = true;
    this.#items = [];
    this.#closing.abort();
    if (!wasEnded && !this[originKey].isGone) await this[originKey].call("ref_close", [], {}, this);
    return { done: true, value: undefined };
  }
}
