/**
 * The references of one pair: which objects of this process the other one holds, and which of its objects this one does.
 *
 * Invariant: an object that was sent stays for as long as it was sent more often than its receipts were given back. A
 * receipt is given back once, after its stand-in is garbage. Twin of Python's table of the same; PROTOCOL.md, "References".
 */
import * as v from "valibot";
import type { ArrayReceiver } from "../transport/array-table.ts";
import type { Clock } from "../transport/clock.ts";
import { decode, referencesIn } from "../transport/codec.ts";
import { AirlockError } from "../transport/errors.ts";
import {
  type RawReferences,
  Reference,
  type ReferenceReceiver,
  type ReferenceSender,
  type ReferredObject,
} from "../transport/references.ts";
import { RawValue } from "../transport/values.ts";
import type { CallOptions } from "./call-options.ts";
import { type Exportable, exportableOf, exportedObject, isSameExport } from "./exports.ts";
import { type Origin, originOf, standInFor } from "./stand-ins.ts";

/** Numbers for the references of one process: none is used twice, and they begin anywhere. */
export class ReferenceIds {
  /** Below 2⁵², which leaves as many again: no process runs out of numbers. */
  #last = Number(BigInt.asUintN(52, crypto.getRandomValues(new BigUint64Array(1))[0] ?? 0n));

  next(): number {
    this.#last += 1;
    return this.#last;
  }
}

/** Calls the other process; see {@link Origin.call}. */
export type CallOwner = (
  method: string,
  args: readonly unknown[],
  keywords: Record<string, unknown>,
  standIn: object,
  options: CallOptions,
) => Promise<unknown>;

export interface ReferencesOptions {
  readonly ids: ReferenceIds;
  readonly clock: Clock;
  readonly callOwner: CallOwner;
  /** Gives receipts back: ids and counts in turn, by the route on which their objects last went home. */
  release(route: object | undefined, counts: readonly number[]): void;
}

/** An object of this process that the other one holds. */
interface Export {
  readonly id: number;
  readonly exportable: Exportable;
  /** How often it was sent and not given back. */
  count: number;
  /** Whether it was seen here again, where it may be in use. */
  hasComeHome: boolean;
}

/** An object of the other process that this one holds. */
interface Held {
  readonly id: number;
  readonly standIn: WeakRef<object>;
  receipts: number;
  /** Where it last went home: its release must not be there before it. */
  route: object | undefined;
}

/** How long receipts are gathered before they are given back: the relay has little room for releases that aren't read. */
const releaseMs = 10;

/** The body of a RELEASE. */
const releaseSchema = v.array(v.pipe(v.number(), v.safeInteger(), v.minValue(0)));

export class References implements ReferenceReceiver {
  readonly #options: ReferencesOptions;
  readonly #exports = new Map<number, Export>();
  readonly #exportOf = new Map<object, Export>();
  readonly #held = new Map<number, Held>();
  readonly #garbage = new FinalizationRegistry<Held>((held) => this.#collected(held));
  /** Receipts to be given back with the next release, by route. */
  #due = new Map<object | undefined, number[]>();
  /** Why the other process holds nothing any more. */
  #ended: AirlockError | undefined;

  constructor(options: ReferencesOptions) {
    this.#options = options;
  }

  /** How many objects of the other process are held here. */
  get heldCount(): number {
    return this.#held.size;
  }

  /** References for one message; see {@link Draft}. */
  draft(route: object): Draft {
    return new Draft(this, route);
  }

  /** An object goes out in a message. Undefined where it can't. */
  send(value: object, route: object): { reference: Reference; undo?: () => void } | undefined {
    const origin = originOf(value);
    if (origin?.isGone) throw goneError(`${origin.type}, which is to be passed on,`);
    if (origin?.table === this) {
      const held = this.#held.get(origin.id);
      if (held !== undefined) held.route = route;
      return { reference: new Reference(origin.id) };
    }
    const exported = this.#export(value);
    if (exported === undefined) return undefined;
    exported.count += 1;
    const { kind, type } = exported.exportable;
    return { reference: new Reference(exported.id, { kind, type }), undo: () => this.#giveBack(exported, 1) };
  }

  #export(value: object): Export | undefined {
    if (this.#ended !== undefined) throw this.#ended;
    const object = exportedObject(value);
    const known = this.#exportOf.get(object);
    if (known !== undefined && isSameExport(known.exportable, value)) return known;
    const exportable = exportableOf(value, this.#options.clock);
    if (exportable === undefined) return undefined;
    const made: Export = { id: this.#options.ids.next(), exportable, count: 0, hasComeHome: false };
    this.#exports.set(made.id, made);
    if (!exportable.isFresh) this.#exportOf.set(object, made);
    return made;
  }

  #giveBack(exported: Export, count: number): void {
    exported.count -= count;
    if (exported.count <= 0) this.#drop(exported);
  }

  #drop(exported: Export): void {
    if (!this.#exports.delete(exported.id)) return;
    const object = exportedObject(exported.exportable.passed);
    if (this.#exportOf.get(object) === exported) this.#exportOf.delete(object);
    if (!exported.hasComeHome) exported.exportable.onDropped?.();
  }

  /** What a reference in a message stands for: a stand-in, or an object of this process. Counts the receipt. */
  fromReference(reference: Reference): object {
    if (reference.object === undefined) return this.#comeHome(reference.id).exportable.value;
    return this.#receive(reference.id, reference.object);
  }

  #comeHome(id: number): Export {
    const exported = this.#find(id);
    exported.hasComeHome = true;
    return exported;
  }

  #find(id: number): Export {
    const exported = this.#exports.get(id);
    if (exported === undefined) throw goneError("the object that a reference names");
    return exported;
  }

  #receive(id: number, object: ReferredObject): object {
    const known = this.#held.get(id);
    const alive = known?.standIn.deref();
    if (known !== undefined && alive !== undefined) {
      known.receipts += 1;
      return alive;
    }
    const standIn = standInFor(this.#originOf(id, object));
    const held: Held = { id, standIn: new WeakRef(standIn), receipts: 1, route: undefined };
    this.#held.set(id, held);
    this.#garbage.register(standIn, held);
    return standIn;
  }

  #originOf(id: number, { kind, type }: ReferredObject): Origin {
    const isGone = (): boolean => this.#ended !== undefined;
    return {
      table: this,
      id,
      kind,
      type,
      get isGone() {
        return isGone();
      },
      call: async (method, args, keywords, standIn, options = {}) => {
        if (this.#ended !== undefined) throw this.#ended;
        return await this.#options.callOwner(method, [id, ...args], keywords, standIn, options);
      },
    };
  }

  #collected(held: Held): void {
    // By now it may have come again, as another stand-in with receipts of its own.
    if (this.#held.get(held.id) === held) this.#held.delete(held.id);
    this.#release(held.id, held.receipts, held.route);
  }

  /** Gives receipts back, with all others of the next moment: a garbage collection has many. */
  #release(id: number, count: number, route: object | undefined): void {
    if (this.#ended !== undefined) return;
    if (this.#due.size === 0) this.#options.clock.after(releaseMs, () => this.#flush());
    const counts = this.#due.get(route) ?? [];
    counts.push(id, count);
    this.#due.set(route, counts);
  }

  #flush(): void {
    const due = this.#due;
    this.#due = new Map();
    if (this.#ended !== undefined) return;
    for (const [route, counts] of due) this.#options.release(route, counts);
  }

  /** Reads a value to be passed on encoded, with what its references stand for. Counts the receipts. */
  hold(bytes: Uint8Array, arrays?: ArrayReceiver): RawValue {
    const found = referencesIn(bytes);
    if (found.length === 0) return new RawValue(bytes, undefined, arrays);
    const values = new Map<string, { readonly value: object; readonly passed: object }>();
    for (const reference of found) {
      const value = this.fromReference(reference);
      const passed = reference.object === undefined ? this.#find(reference.id).exportable.passed : value;
      values.set(keyOf(reference), { value, passed });
    }
    return new RawValue(bytes, new HeldReferences(values), arrays);
  }

  /** Gives back what came in a message that nobody waits for. */
  discard(bytes: Uint8Array): void {
    for (const { id, object } of this.#readable(bytes)) {
      if (object === undefined) continue;
      const known = this.#held.get(id);
      if (known?.standIn.deref() === undefined) this.#release(id, 1, undefined);
      else known.receipts += 1;
    }
  }

  /** The references in a message; none where it is no value, which is its sender's loss. */
  #readable(bytes: Uint8Array): Reference[] {
    try {
      return referencesIn(bytes);
    } catch {
      return [];
    }
  }

  /** Takes a RELEASE. Ids that are not known are of an earlier process, and what makes no sense is its sender's loss. */
  released(body: Uint8Array): void {
    for (const [id, count] of releasedCounts(body)) {
      const exported = this.#exports.get(id);
      if (exported !== undefined) this.#giveBack(exported, count);
    }
  }

  /**
   * Does with an object of this process what the other one asks for.
   *
   * @throws AirlockError `reference_gone`, `bad_request` where that can't be done with it, or what it throws.
   */
  perform(method: string, [id, ...args]: readonly unknown[], keywords: Record<string, unknown>): unknown {
    const { exportable } = this.#find(typeof id === "number" ? id : -1);
    const operation = Object.hasOwn(exportable.operations, method) ? exportable.operations[method] : undefined;
    if (operation !== undefined) return operation(args, keywords);
    throw new AirlockError(
      "bad_request",
      `${exportable.type} is of kind ${exportable.kind}, which ${method} is not for`,
    );
  }

  /** What the other process holds by now: how often each object was sent and not given back. */
  mark(): ReadonlyMap<number, number> {
    return new Map([...this.#exports.values()].map(({ id, count }) => [id, count]));
  }

  /** The process is gone that held what was marked. What was sent since then is for another, which takes its place. */
  endMarked(mark: ReadonlyMap<number, number>): void {
    for (const [id, count] of mark) {
      const exported = this.#exports.get(id);
      if (exported !== undefined) this.#giveBack(exported, count);
    }
  }

  /** The other process is gone: what it held is dropped, and stand-ins of its objects fail from now on. */
  end(reason: AirlockError): void {
    this.#ended ??= reason;
    for (const exported of [...this.#exports.values()]) this.#drop(exported);
  }
}

/**
 * The references of one message that is being written. They count from when they are written, so that nothing is dropped
 * that waits to be sent; a message that is never sent, or reached nobody, is undone. What goes home is reachable as long
 * as this is.
 */
export class Draft implements ReferenceSender {
  readonly #references: References;
  readonly #route: object;
  readonly #undo: (() => void)[] = [];
  readonly #kept: object[] = [];
  #hasReferences = false;
  #hasLeft = false;

  constructor(references: References, route: object) {
    this.#references = references;
    this.#route = route;
  }

  /** Whether the message holds references, of either side's. */
  get hasReferences(): boolean {
    return this.#hasReferences;
  }

  toReference(value: object): Reference | undefined {
    const sent = this.#references.send(value, this.#route);
    if (sent?.undo !== undefined) this.#undo.push(sent.undo);
    this.#hasReferences ||= sent !== undefined;
    this.#kept.push(value);
    return sent?.reference;
  }

  /** The message has left. */
  sent(): void {
    this.#hasLeft = true;
  }

  /** The message will not be sent; nothing happens where it has left. */
  undo(): void {
    if (!this.#hasLeft) this.returned();
  }

  /** The message has reached nobody. */
  returned(): void {
    for (const undo of this.#undo.splice(0)) undo();
  }
}

class HeldReferences implements RawReferences {
  readonly #values: ReadonlyMap<string, { readonly value: object; readonly passed: object }>;

  constructor(values: ReadonlyMap<string, { readonly value: object; readonly passed: object }>) {
    this.#values = values;
  }

  fromReference(reference: Reference): object {
    return this.#entry(reference).value;
  }

  toSend(reference: Reference): object {
    return this.#entry(reference).passed;
  }

  *all(): Iterable<object> {
    for (const { value } of this.#values.values()) yield value;
  }

  #entry(reference: Reference): { readonly value: object; readonly passed: object } {
    const entry = this.#values.get(keyOf(reference));
    if (entry === undefined) throw goneError("the object that a reference names");
    return entry;
  }
}

function keyOf({ id, object }: Reference): string {
  return `${object === undefined ? "home" : "away"} ${id}`;
}

function releasedCounts(body: Uint8Array): [id: number, count: number][] {
  let items: readonly number[] = [];
  try {
    const parsed = v.safeParse(releaseSchema, decode(body));
    if (parsed.success) items = parsed.output;
  } catch {
    return [];
  }
  return Array.from({ length: items.length >> 1 }, (_, index) => [items[2 * index] ?? 0, items[2 * index + 1] ?? 0]);
}

function goneError(what: string): AirlockError {
  return new AirlockError("reference_gone", `${what} is gone: it was released, or its process has ended`);
}
