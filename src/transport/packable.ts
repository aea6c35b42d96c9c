/**
 * Values as msgpackr should see them: checked, and each part in the form that keeps its type. Pure.
 *
 * Nothing is guessed: an object that is neither plain nor one of the classes in `values.ts` crosses by reference where
 * the message can hold one and its owner agrees, and is refused by name everywhere else.
 */

import { inRowOrder } from "./array-layout.ts";
import { ArrayIndex, type ArraySender } from "./array-table.ts";
import { AirlockError } from "./errors.ts";
import type { Reference, ReferenceSender } from "./references.ts";
import { Complex, Float, FrozenSet, Named, NdArray, Tuple } from "./values.ts";

/** What takes the parts of a message that stand beside its value. */
export interface Senders {
  /** Where the message may hold references. */
  readonly references?: ReferenceSender | undefined;
  /** Where it may have a table of arrays. */
  readonly arrays?: ArraySender | undefined;
}

/** As in JSON, a field that is undefined is a field that is not there. */
export function presentEntries(value: Record<string, unknown>): [string, unknown][] {
  return Object.entries(value).filter(([, item]) => item !== undefined);
}

export function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/**
 * The value as msgpackr should see it: checked, and with each number in the form that keeps its type.
 *
 * @param room how many arrays, maps and extensions may lie inside one another from here on, counted as the scan does.
 */
export function packable(value: unknown, path: string, room: number, senders: Senders | undefined): unknown {
  if (typeof value === "object" && value !== null) return packableObject(value, path, room, senders);
  if (typeof value === "number") return packableNumber(value);
  if (typeof value === "string" && !value.isWellFormed()) {
    throw new AirlockError("value_unsupported", `${path} is a string with half of a surrogate pair, which no text has`);
  }
  if (typeof value === "function") return packableReference(value, path, room, senders);
  if (typeof value === "symbol") throw unsupported(path, "symbol");
  return value ?? null;
}

/**
 * msgpackr would send whole numbers beyond 32 bits as floats, and a seed would change its type; and it would send -0 as
 * the int 0, where only a float has a sign of zero.
 */
function packableNumber(value: number): unknown {
  if (Object.is(value, -0)) return new Float(value);
  return Number.isSafeInteger(value) && (value > 0xffff_ffff || value < -0x8000_0000) ? BigInt(value) : value;
}

function packableObject(value: object, path: string, room: number, senders: Senders | undefined): unknown {
  if (value instanceof Complex || value instanceof Float) return value;
  if (value instanceof Uint8Array) return packableBytes(value, path, room, senders);
  if (room < levels(value)) throw tooDeep(path);
  if (value instanceof Date) return packableDate(value, path);
  const inside = room - levels(value);
  const inner = (item: unknown, where: string): unknown => packable(item, `${path}${where}`, inside, senders);
  if (value instanceof NdArray) return packableArray(value, path, inside, senders);
  if (value instanceof Named) return new Named(inner(value.name, ".name") as string, inner(value.state, ".state"));
  if (Array.isArray(value) || value instanceof Set) return packableItems(value, inner);
  if (value instanceof Map) {
    return new Map([...value].map(([key, item]) => [inner(key, " key"), inner(item, `[${String(key)}]`)]));
  }
  if (!isPlainObject(value) || (senders?.references !== undefined && isIterable(value))) {
    return packableReference(value, path, room, senders);
  }
  return new Map(presentEntries(value).map(([key, item]) => [inner(key, " key"), inner(item, `.${key}`)]));
}

/** How many levels of nesting a value opens on the wire: an extension is one, and the array in it another. */
function levels(value: object): number {
  if (value instanceof Tuple || value instanceof Set || value instanceof Named || value instanceof Date) return 2;
  return value instanceof NdArray ? 2 : 1;
}

function packableItems(
  value: readonly unknown[] | Set<unknown>,
  inner: (item: unknown, where: string) => unknown,
): unknown {
  const items = [...value].map((item, index) => inner(item, `[${index}]`));
  if (value instanceof Tuple) return Tuple.from(items);
  if (value instanceof FrozenSet) return new FrozenSet(items);
  return value instanceof Set ? new Set(items) : items;
}

function isIterable(value: object): boolean {
  return Symbol.iterator in value || Symbol.asyncIterator in value;
}

function packableReference(value: object, path: string, room: number, senders: Senders | undefined): Reference {
  if (room < 2) throw tooDeep(path);
  return referTo(value, path, senders);
}

export function referTo(value: object, path: string, senders: Senders | undefined): Reference {
  const reference = senders?.references?.toReference(value);
  if (reference !== undefined) return reference;
  throw unsupported(path, typeof value === "function" ? "function" : (value.constructor?.name ?? "object"));
}

function tooDeep(path: string): AirlockError {
  return new AirlockError("value_unsupported", `${path} is nested too deep, or contains itself`);
}

function unsupported(path: string, type: string): AirlockError {
  return new AirlockError("value_unsupported", `${path} is a ${type}, which cannot cross to Python`, {
    hint: "send a plain object, an array, one of the value classes that comfy-airlock exports, or remote(object)",
  });
}

function packableDate(date: Date, path: string): Date {
  if (!Number.isNaN(date.getTime())) return date;
  throw new AirlockError("value_unsupported", `${path} is a Date that stands for no time`);
}

/** Large bytes may stand in the table of arrays. */
function packableBytes(bytes: Uint8Array, path: string, room: number, senders: Senders | undefined): unknown {
  const index = senders?.arrays?.add(bytes);
  if (index === undefined) return bytes;
  if (room < 1) throw tooDeep(path);
  return new ArrayIndex(index);
}

function packableArray(array: NdArray, path: string, room: number, senders: Senders | undefined): unknown {
  if (!array.shape.every((length) => Number.isSafeInteger(length) && length >= 0)) {
    throw new AirlockError(
      "value_unsupported",
      `${path} has the shape [${array.shape.join(", ")}], which no array has`,
    );
  }
  const shape = packable([...array.shape], `${path}.shape`, room, undefined) as number[];
  const dtype = packable(array.dtype, `${path}.dtype`, room, undefined);
  const index = senders?.arrays?.add(array);
  if (index !== undefined) return new ArrayIndex(index);
  // An array that stands by itself has one of two orders.
  const { order, data } = typeof array.order === "string" ? array : inRowOrder(array);
  return new NdArray(array.kind, dtype, shape, data, order);
}
