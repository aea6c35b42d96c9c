/**
 * Which objects of this process cross by reference, and what can be done with each from outside.
 *
 * A function can be called and nothing else, an iterator taken from and closed, an object used as far as `remote` opened
 * it. A stand-in that is passed on keeps the rights that its owner gives it.
 */
import type { Clock } from "../transport/clock.ts";
import type { ReferredObject } from "../transport/references.ts";
import { type AnyIterable, ExportedIterator } from "./exported-iterator.ts";
import { joinKeywords } from "./keywords.ts";
import { isSameOpening, OpenedObject, Remote, typeOf } from "./remote.ts";
import { type Origin, originOf } from "./stand-ins.ts";

/** The methods of PROTOCOL.md, "References", each without the id that stands before its arguments. */
export type Operation = (args: readonly unknown[], keywords: Record<string, unknown>) => unknown;

/** What another process gets of an object. */
export interface Exportable extends ReferredObject {
  /** What comes home when the reference does. */
  readonly value: object;
  /** What was passed: an object, or what `remote` made of it. */
  readonly passed: object;
  /** Whether each time that it is passed is a reference of its own. */
  readonly isFresh: boolean;
  readonly operations: Readonly<Record<string, Operation>>;
  /** Called once nobody outside holds it. */
  readonly onDropped?: () => void;
}

/** @returns undefined for what cannot cross by reference. */
export function exportableOf(value: object, clock: Clock): Exportable | undefined {
  const origin = originOf(value);
  if (origin !== undefined) return exportableStandIn(value, origin, clock);
  if (value instanceof Remote) return exportableObject(value);
  if (typeof value === "function") return isClass(value) ? undefined : exportableFunction(value as () => unknown);
  return isIterable(value) ? exportableIterable(value, clock) : undefined;
}

/** Whether a value that was exported before may go by the same reference again. */
export function isSameExport(known: Exportable, value: object): boolean {
  return (
    known.passed === value ||
    (known.passed instanceof Remote && value instanceof Remote && isSameOpening(known.passed, value))
  );
}

/** The object that a value is exported for: what `remote` opens, or the value itself. */
export function exportedObject(value: object): object {
  return value instanceof Remote ? value.object : value;
}

function exportableFunction(value: (...args: unknown[]) => unknown): Exportable {
  return {
    kind: "function",
    type: typeOf(value),
    value,
    passed: value,
    isFresh: false,
    operations: { ref_call: (args, keywords) => value(...joinKeywords(args, keywords)) },
  };
}

function exportableObject(opening: Remote): Exportable {
  const opened = new OpenedObject(opening);
  return {
    kind: "object",
    type: typeOf(opening.object),
    value: opening.object,
    passed: opening,
    isFresh: false,
    operations: {
      ref_get: ([name]) => opened.get(name),
      ref_method: ([name, ...args], keywords) => opened.invoke(name, args, keywords),
    },
  };
}

/** An iterator is one object wherever it is passed; of what can only be iterated each receiver gets an iterator of its own. */
function exportableIterable(value: AnyIterable, clock: Clock): Exportable {
  const kind = Symbol.asyncIterator in value ? "async_iterator" : "iterator";
  const isFresh = !("next" in value && typeof value.next === "function");
  return { kind, type: typeOf(value), value, passed: value, isFresh, ...iteratorOperations(value, clock) };
}

function iteratorOperations(value: AnyIterable, clock: Clock): Pick<Exportable, "operations" | "onDropped"> {
  const iterator = new ExportedIterator(value, clock);
  return {
    operations: { ref_take: ([count]) => iterator.take(count), ref_close: () => iterator.close() },
    onDropped: () => iterator.drop(),
  };
}

/** What another process owns, and this one passes on: calls go there. Items that have come already go first. */
function exportableStandIn(value: object, origin: Origin, clock: Clock): Exportable {
  const { kind, type } = origin;
  const shared = { kind, type, value, passed: value, isFresh: false };
  if (kind === "iterator" || kind === "async_iterator") {
    return { ...shared, ...iteratorOperations(value as AnyIterable, clock) };
  }
  const names = kind === "function" ? ["ref_call"] : ["ref_get", "ref_method"];
  const forwarded =
    (method: string): Operation =>
    (args, keywords) =>
      origin.call(method, args, keywords, value);
  return { ...shared, operations: Object.fromEntries(names.map((method) => [method, forwarded(method)])) };
}

function isIterable(value: object): value is AnyIterable {
  return (Symbol.asyncIterator in value || Symbol.iterator in value) && !ArrayBuffer.isView(value);
}

function isClass(value: object): boolean {
  return /^class\b/.test(Function.prototype.toString.call(value));
}
