/**
 * Values to msgpack and back, with the extensions of PROTOCOL.md, "Values". Pure; the only file that imports msgpackr.
 *
 * Nothing is guessed: an object that is neither plain nor one of the classes in `values.ts` crosses by reference where
 * the message can hold one and its owner agrees, and is refused by name everywhere else. Twin of
 * `worker/src/comfy_airlock/wire/codec.py`; both read `tests/vectors/values.json`.
 */
import { addExtension, Packr } from "msgpackr";
import { AirlockError } from "./errors.ts";
import { Extension } from "./extensions.ts";
import { arrayFromWire, complexFromWire, complexToWire, namedFromWire } from "./forms.ts";
import { rewriteReferences } from "./raw-references.ts";
import {
  Reference,
  type ReferenceReceiver,
  type ReferenceSender,
  referenceFrom,
  referenceItems,
} from "./references.ts";
import { checkValue } from "./scan.ts";
import { Complex, Float, FrozenSet, Named, NdArray, RawValue, Tuple } from "./values.ts";

/** Depth that a value may have. */
const depthMax = 128;

/**
 * Encodes one value.
 *
 * @param references where the message may hold references.
 * @throws AirlockError `value_unsupported`, naming the path to the part that cannot cross.
 */
export function encode(value: unknown, references?: ReferenceSender): Uint8Array {
  return encodePart(value, "value", depthMax, references);
}

function encodePart(value: unknown, path: string, room: number, references: ReferenceSender | undefined): Uint8Array {
  return packed(packr, packable(value, path, room, references));
}

/** msgpackr writes each value after the last one, into a buffer of its own, and never over it: no copy is needed. */
function packed(packer: Packr, value: unknown): Uint8Array {
  return plainView(packer.pack(value));
}

/** Node's `Buffer` is a `Uint8Array` whose `slice` does not copy; who holds bytes of ours need not know. */
function plainView(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * Decodes bytes that must be exactly one value.
 *
 * @param references where the message may hold references.
 * @throws AirlockError `value_invalid`, or as the receiver of references does.
 */
export function decode(bytes: Uint8Array, references?: ReferenceReceiver): unknown {
  checkValue(bytes, depthMax, references !== undefined);
  try {
    return restored(packr.unpack(plainView(bytes)), references);
  } catch (error) {
    if (error instanceof AirlockError) throw error;
    throw new AirlockError("value_invalid", `the value could not be decoded: ${String(error)}`, {}, { cause: error });
  }
}

/** Decodes a value that was carried around encoded; throws as {@link decode}. */
export function decodeRaw(raw: RawValue): unknown {
  return decode(raw.bytes, raw.references);
}

/**
 * Encodes a value that may hold {@link RawValue}s in plain objects and arrays; of raw bytes nothing is changed but the
 * references in them.
 *
 * @returns the encoding in parts, to be joined by whoever sends it.
 * @throws AirlockError as {@link encode}.
 */
export function encodeParts(value: unknown, references?: ReferenceSender): Uint8Array[] {
  const parts: Uint8Array[] = [];
  appendParts(value, "value", depthMax, parts, references);
  return parts;
}

function appendParts(
  value: unknown,
  path: string,
  room: number,
  parts: Uint8Array[],
  references: ReferenceSender | undefined,
): void {
  if (value instanceof RawValue) parts.push(passedOn(value, path, room, references));
  else if (!holdsRaw(value, room)) parts.push(encodePart(value, path, room, references));
  else if (Array.isArray(value)) {
    parts.push(containerHead(0x90, 0xdd, value.length));
    for (const [index, item] of value.entries()) appendParts(item, `${path}[${index}]`, room - 1, parts, references);
  } else {
    const entries = presentEntries(value as Record<string, unknown>);
    parts.push(containerHead(0x80, 0xdf, entries.length));
    for (const [key, item] of entries) {
      parts.push(encodePart(key, `${path} key`, room, undefined));
      appendParts(item, `${path}.${key}`, room - 1, parts, references);
    }
  }
}

/** The bytes of a raw value, each reference in them by the name that it has where they go. */
function passedOn(raw: RawValue, path: string, room: number, references: ReferenceSender | undefined): Uint8Array {
  const held = raw.references;
  // Bytes that end early or late would change the meaning of what stands after them.
  checkValue(raw.bytes, room, held !== undefined);
  if (held === undefined) return raw.bytes;
  return rewriteReferences(raw.bytes, (payload) => {
    const value = held.toSend(referenceOf(payload));
    return packed(packr, referTo(value, path, references));
  });
}

/** The reference in the payload of its extension. */
function referenceOf(payload: Uint8Array): Reference {
  return referenceFrom(restored(itemsOf(packr, payload), undefined) as unknown[]);
}

/** The references that a value holds, in order, with those that it holds more than once; the value is checked. */
export function referencesIn(bytes: Uint8Array): Reference[] {
  checkValue(bytes, depthMax, true);
  const found: Reference[] = [];
  rewriteReferences(bytes, (payload) => {
    found.push(referenceOf(payload));
    return undefined;
  });
  return found;
}

/** The head of an array or map, in the short form where it fits. */
function containerHead(short: number, long: number, length: number): Uint8Array {
  if (length < 16) return Uint8Array.of(short | length);
  return Uint8Array.of(long, length >>> 24, length >>> 16, length >>> 8, length);
}

/** Looks no deeper than `room`: what lies below is refused as too deep in any case. */
function holdsRaw(value: unknown, room: number): boolean {
  if (value instanceof RawValue) return true;
  if (room <= 0) return false;
  if (Array.isArray(value) && !(value instanceof Tuple)) return value.some((item) => holdsRaw(item, room - 1));
  return isPlainObject(value) && Object.values(value).some((item) => holdsRaw(item, room - 1));
}

/** As in JSON, a field that is undefined is a field that is not there. */
function presentEntries(value: Record<string, unknown>): [string, unknown][] {
  return Object.entries(value).filter(([, item]) => item !== undefined);
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/**
 * The value as msgpackr should see it: checked, and with each number in the form that keeps its type.
 *
 * @param room how many arrays, maps and extensions may lie inside one another from here on, counted as the scan does.
 */
function packable(value: unknown, path: string, room: number, references: ReferenceSender | undefined): unknown {
  if (typeof value === "object" && value !== null) return packableObject(value, path, room, references);
  if (typeof value === "number") return packableNumber(value);
  if (typeof value === "string" && !value.isWellFormed()) {
    throw new AirlockError("value_unsupported", `${path} is a string with half of a surrogate pair, which no text has`);
  }
  if (typeof value === "function") return packableReference(value, path, room, references);
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

function packableObject(value: object, path: string, room: number, references: ReferenceSender | undefined): unknown {
  if (value instanceof Uint8Array || value instanceof Complex || value instanceof Float) return value;
  if (room < levels(value)) throw tooDeep(path);
  if (value instanceof Date) return packableDate(value, path);
  const inside = room - levels(value);
  const inner = (item: unknown, where: string): unknown => packable(item, `${path}${where}`, inside, references);
  if (value instanceof NdArray) return packableArray(value, path, inside);
  if (value instanceof Named) return new Named(inner(value.name, ".name") as string, inner(value.state, ".state"));
  if (Array.isArray(value) || value instanceof Set) return packableItems(value, inner);
  if (value instanceof Map) {
    return new Map([...value].map(([key, item]) => [inner(key, " key"), inner(item, `[${String(key)}]`)]));
  }
  if (!isPlainObject(value) || (references !== undefined && isIterable(value))) {
    return packableReference(value, path, room, references);
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

function packableReference(
  value: object,
  path: string,
  room: number,
  references: ReferenceSender | undefined,
): Reference {
  if (room < 2) throw tooDeep(path);
  return referTo(value, path, references);
}

function referTo(value: object, path: string, references: ReferenceSender | undefined): Reference {
  const reference = references?.toReference(value);
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

function packableArray(array: NdArray, path: string, room: number): NdArray {
  if (!array.shape.every((length) => Number.isSafeInteger(length) && length >= 0)) {
    throw new AirlockError(
      "value_unsupported",
      `${path} has the shape [${array.shape.join(", ")}], which no array has`,
    );
  }
  const shape = packable([...array.shape], `${path}.shape`, room, undefined) as number[];
  const dtype = packable(array.dtype, `${path}.dtype`, room, undefined);
  return new NdArray(array.kind, dtype, shape, array.data, array.order);
}

/**
 * What msgpackr unpacked, in the types of PROTOCOL.md: a dict is a plain object where every key is a harmless string,
 * else a Map; an int is a number where that is exact; a reference is what it stands for.
 */
function restored(value: unknown, references: ReferenceReceiver | undefined): unknown {
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  if (typeof value !== "object" || value === null) return value;
  const inner = (item: unknown): unknown => restored(item, references);
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) value[index] = inner(value[index]);
    return value;
  }
  if (value instanceof Map) return restoredMap([...value].map(([key, item]) => [inner(key), inner(item)]));
  if (value instanceof FrozenSet) return new FrozenSet([...value].map(inner));
  if (value instanceof Set) return new Set([...value].map(inner));
  if (value instanceof Named) return new Named(value.name, inner(value.state));
  if (value instanceof Reference) return resolved(value, references);
  return value;
}

function restoredMap(entries: [unknown, unknown][]): unknown {
  const plain = entries.every(([key]) => typeof key === "string" && key !== "__proto__");
  return plain ? Object.fromEntries(entries) : new Map(entries);
}

function resolved(reference: Reference, references: ReferenceReceiver | undefined): unknown {
  if (references !== undefined) return references.fromReference(reference);
  throw new AirlockError("value_invalid", "a reference stands where it has no meaning");
}

/** What the payload of an extension holds, which is an array for all that are msgpack themselves. */
function itemsOf(packer: Packr, payload: Uint8Array): unknown[] {
  const value: unknown = packer.unpack(payload);
  if (Array.isArray(value)) return value;
  throw new AirlockError("value_invalid", "an extension's payload is not an array");
}

/** A class and the extension that carries it. */
interface Carrier<T> {
  readonly Class: abstract new (...args: never[]) => T;
  readonly type: number;
  readonly toWire: (value: T) => Uint8Array;
  readonly fromWire: (payload: Uint8Array) => T;
}

/** msgpackr keeps its extensions in one table per process, so the codec is one per process too. */
const packr = createPackr();

function createPackr(): Packr {
  const created = new Packr({
    useRecords: false,
    mapsAsObjects: false,
    int64AsType: "bigint",
    useBigIntExtension: true,
  });
  const pack = (value: unknown): Uint8Array => packed(created, value);
  // What is inside is restored with all the rest, once the whole value is there.
  const items = (payload: Uint8Array): unknown[] => itemsOf(created, payload);
  const restoredItems = (payload: Uint8Array): unknown[] => restored(items(payload), undefined) as unknown[];
  // Of two classes that fit a value the later registration wins, so a subclass comes after the class it extends.
  registerSets(pack, items);
  register({
    Class: Tuple,
    type: Extension.tuple,
    toWire: (tuple) => pack([...tuple]),
    fromWire: (bytes) => Tuple.from(items(bytes)),
  });
  register({ Class: Complex, type: Extension.complex, toWire: complexToWire, fromWire: complexFromWire });
  register({
    Class: NdArray,
    type: Extension.array,
    toWire: (array) => pack([array.kind, array.dtype, [...array.shape], array.order, array.data]),
    fromWire: (bytes) => arrayFromWire(restoredItems(bytes)),
  });
  // A Date is an instant; Python's twin is an aware datetime in UTC. It comes back as a Named, because a Date would lose
  // microseconds and the time zone.
  const namedFrom = (bytes: Uint8Array): Named => namedFromWire(items(bytes));
  register({
    Class: Date as unknown as abstract new () => Date | Named,
    type: Extension.named,
    toWire: (date) => pack(["datetime", (date as Date).toISOString().replace("Z", "+00:00")]),
    fromWire: namedFrom,
  });
  register({
    Class: Named,
    type: Extension.named,
    toWire: (named) => pack([named.name, named.state]),
    fromWire: namedFrom,
  });
  register({
    Class: Reference,
    type: Extension.reference,
    toWire: (reference) => pack(packable(referenceItems(reference), "reference", depthMax, undefined)),
    fromWire: (bytes) => referenceFrom(restoredItems(bytes)),
  });
  registerFloat();
  return created;
}

function registerSets(pack: (value: unknown) => Uint8Array, items: (payload: Uint8Array) => unknown[]): void {
  register({
    Class: Set,
    type: Extension.set,
    toWire: (set) => pack([...set]),
    fromWire: (bytes) => new Set(items(bytes)),
  });
  register({
    Class: FrozenSet,
    type: Extension.frozenset,
    toWire: (set) => pack([...set]),
    fromWire: (bytes) => new FrozenSet(items(bytes)),
  });
}

function register<T>(carrier: Carrier<T>): void {
  addExtension({ Class: carrier.Class, type: carrier.type, pack: carrier.toWire, unpack: carrier.fromWire });
}

/** msgpackr writes whole numbers as ints; this writes a float64 head by hand, through the buffer that it offers. */
function registerFloat(): void {
  type Room = { target: Uint8Array; targetView: DataView; position: number };
  const pack = (float: Float, allocate: (bytes: number) => Room): void => {
    const { target, targetView, position } = allocate(9);
    target[position] = 0xcb;
    targetView.setFloat64(position + 1, float.value);
  };
  // The code is never written, as nothing is returned; msgpackr wants one all the same.
  addExtension({ Class: Float, type: 0x7f, pack: pack as never });
}
