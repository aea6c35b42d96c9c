/**
 * Values to msgpack and back, with the extensions of PROTOCOL.md, "Values". Pure; the only file that imports msgpackr.
 *
 * Twin of `worker/src/comfy_airlock/wire/codec.py`; both read `tests/vectors/values.json`. What msgpackr gets to see is
 * `packable.ts`'s to say.
 */
import { addExtension, Packr } from "msgpackr";
import { ArrayIndex, type ArrayReceiver, type ArraySender } from "./array-table.ts";
import { AirlockError } from "./errors.ts";
import { Extension } from "./extensions.ts";
import { arrayFromWire, complexFromWire, complexToWire, namedFromWire } from "./forms.ts";
import { isPlainObject, packable, presentEntries, referTo, type Senders } from "./packable.ts";
import { isUnsigned, rewriteExtensions } from "./raw-extensions.ts";
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
 * @param arrays where it may have a table of arrays.
 * @throws AirlockError `value_unsupported`, naming the path to the part that cannot cross.
 */
export function encode(value: unknown, references?: ReferenceSender, arrays?: ArraySender): Uint8Array {
  return encodePart(value, "value", depthMax, { references, arrays });
}

function encodePart(value: unknown, path: string, room: number, senders: Senders | undefined): Uint8Array {
  return packed(packr, packable(value, path, room, senders));
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
 * @param arrays where it has a table of arrays.
 * @throws AirlockError `value_invalid`, or as the receivers of references and arrays do.
 */
export function decode(bytes: Uint8Array, references?: ReferenceReceiver, arrays?: ArrayReceiver): unknown {
  checkValue(bytes, depthMax, references !== undefined);
  try {
    return restored(packr.unpack(plainView(bytes)), { references, arrays });
  } catch (error) {
    if (error instanceof AirlockError) throw error;
    throw new AirlockError("value_invalid", `the value could not be decoded: ${String(error)}`, {}, { cause: error });
  }
}

/** Decodes a value that was carried around encoded; throws as {@link decode}. */
export function decodeRaw(raw: RawValue): unknown {
  return decode(raw.bytes, raw.references, raw.arrays);
}

/**
 * Encodes a value that may hold {@link RawValue}s in plain objects and arrays; of raw bytes nothing is changed but the
 * references in them and the indexes of arrays.
 *
 * @returns the encoding in parts, to be joined by whoever sends it.
 * @throws AirlockError as {@link encode}.
 */
export function encodeParts(value: unknown, references?: ReferenceSender, arrays?: ArraySender): Uint8Array[] {
  const parts: Uint8Array[] = [];
  appendParts(value, "value", depthMax, parts, { references, arrays });
  return parts;
}

function appendParts(
  value: unknown,
  path: string,
  room: number,
  parts: Uint8Array[],
  senders: Senders | undefined,
): void {
  if (value instanceof RawValue) parts.push(passedOn(value, path, room, senders));
  else if (!holdsRaw(value, room)) parts.push(encodePart(value, path, room, senders));
  else if (Array.isArray(value)) {
    parts.push(containerHead(0x90, 0xdd, value.length));
    for (const [index, item] of value.entries()) appendParts(item, `${path}[${index}]`, room - 1, parts, senders);
  } else {
    const entries = presentEntries(value as Record<string, unknown>);
    parts.push(containerHead(0x80, 0xdf, entries.length));
    for (const [key, item] of entries) {
      parts.push(encodePart(key, `${path} key`, room, undefined));
      appendParts(item, `${path}.${key}`, room - 1, parts, senders);
    }
  }
}

/** The bytes of a raw value: each reference in them, and each index of an array, as it is named where they go. */
function passedOn(raw: RawValue, path: string, room: number, senders: Senders | undefined): Uint8Array {
  const { bytes, references, arrays } = raw;
  // Bytes that end early or late would change the meaning of what stands after them.
  checkValue(bytes, room, references !== undefined);
  if (references === undefined && arrays === undefined) return bytes;
  return rewriteExtensions(bytes, {
    ...(references && {
      reference: (payload) => packed(packr, referTo(references.toSend(referenceOf(payload)), path, senders)),
    }),
    ...(arrays && { arrayIndex: (payload) => arrayPassedOn(arrays, indexFrom(unpacked(payload)), path, senders) }),
  });
}

/** An array of a raw value's: by its index in the table of the message that it goes into, else by itself. */
function arrayPassedOn(arrays: ArrayReceiver, from: number, path: string, senders: Senders | undefined): Uint8Array {
  const index = senders?.arrays?.forward(arrays, from);
  return index === undefined
    ? encodePart(arrays.at(from), path, depthMax, undefined)
    : packed(packr, new ArrayIndex(index));
}

/** The reference in the payload of its extension. */
function referenceOf(payload: Uint8Array): Reference {
  return referenceFrom(restored(itemsOf(packr, payload), undefined) as unknown[]);
}

/** The references that a value holds, in order, with those that it holds more than once; the value is checked. */
export function referencesIn(bytes: Uint8Array): Reference[] {
  checkValue(bytes, depthMax, true);
  const found: Reference[] = [];
  const reference = (payload: Uint8Array): undefined => void found.push(referenceOf(payload));
  rewriteExtensions(bytes, { reference });
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

/** What finds what stands beside a message's value. */
interface Receivers {
  readonly references: ReferenceReceiver | undefined;
  readonly arrays: ArrayReceiver | undefined;
}

/**
 * What msgpackr unpacked, in the types of PROTOCOL.md: a dict is a plain object where every key is a harmless string,
 * else a Map; an int is a number where that is exact; a reference is what it stands for.
 */
function restored(value: unknown, receivers: Receivers | undefined): unknown {
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  if (typeof value !== "object" || value === null) return value;
  const inner = (item: unknown): unknown => restored(item, receivers);
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) value[index] = inner(value[index]);
    return value;
  }
  if (value instanceof Map) return restoredMap([...value].map(([key, item]) => [inner(key), inner(item)]));
  if (value instanceof FrozenSet) return new FrozenSet([...value].map(inner));
  if (value instanceof Set) return new Set([...value].map(inner));
  if (value instanceof Named) return new Named(value.name, inner(value.state));
  if (value instanceof Reference) return resolved(value, receivers?.references);
  if (value instanceof ArrayIndex) return arrayAt(value, receivers?.arrays);
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

function arrayAt({ index }: ArrayIndex, arrays: ArrayReceiver | undefined): unknown {
  if (arrays !== undefined) return arrays.at(index);
  throw new AirlockError("value_invalid", "an array's index stands where there is no table of arrays");
}

function unpacked(payload: Uint8Array): unknown {
  return packr.unpack(payload);
}

function indexFrom(value: unknown): number {
  if (Number.isSafeInteger(value)) return value as number;
  throw new AirlockError("value_invalid", "an array has a list, or an index");
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
  // What a type's bytes become is the later registration's to say: it knows both.
  register<ArrayIndex | NdArray>({
    Class: ArrayIndex,
    type: Extension.array,
    toWire: (array) => pack((array as ArrayIndex).index),
    fromWire: (bytes) =>
      isUnsigned(bytes[0]) ? new ArrayIndex(indexFrom(created.unpack(bytes))) : arrayFromWire(restoredItems(bytes)),
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
