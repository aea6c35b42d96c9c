/**
 * Values to msgpack and back, with the extensions of PROTOCOL.md, "Values". Pure; the only file that imports msgpackr.
 *
 * Nothing is guessed: an object that is neither plain nor one of the classes in `values.ts` is refused by name. Twin of
 * `worker/src/comfy_airlock/wire/codec.py`; both read `tests/vectors/values.json`.
 */
import { addExtension, Packr } from "msgpackr";
import { AirlockError } from "./errors.ts";
import { Extension } from "./extensions.ts";
import { checkValue } from "./scan.ts";
import { type ArrayKind, Complex, Float, FrozenSet, Named, NdArray, RawValue, Tuple } from "./values.ts";

/** Depth that a value may have where no other limit is in force. */
const depthMaxDefault = 128;

/**
 * Encodes one value.
 *
 * @throws AirlockError `value_unsupported`, naming the path to the part that cannot cross.
 */
export function encode(value: unknown, depthMax: number = depthMaxDefault): Uint8Array {
  return encodePart(value, "value", depthMax);
}

function encodePart(value: unknown, path: string, room: number): Uint8Array {
  return packed(packr, packable(value, path, room));
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
 * @throws AirlockError `value_invalid`.
 */
export function decode(bytes: Uint8Array, depthMax: number = depthMaxDefault): unknown {
  checkValue(bytes, depthMax);
  try {
    return restored(packr.unpack(plainView(bytes)));
  } catch (error) {
    if (error instanceof AirlockError) throw error;
    throw new AirlockError("value_invalid", `the value could not be decoded: ${String(error)}`, {}, { cause: error });
  }
}

/**
 * Encodes a value that may hold {@link RawValue}s in plain objects and arrays; raw bytes are passed through untouched.
 *
 * @returns the encoding in parts, to be joined by whoever sends it.
 * @throws AirlockError as {@link encode}.
 */
export function encodeParts(value: unknown): Uint8Array[] {
  const parts: Uint8Array[] = [];
  appendParts(value, "value", depthMaxDefault, parts);
  return parts;
}

function appendParts(value: unknown, path: string, room: number, parts: Uint8Array[]): void {
  if (value instanceof RawValue) {
    // Bytes that end early or late would change the meaning of what stands after them.
    checkValue(value.bytes, room);
    parts.push(value.bytes);
  } else if (!holdsRaw(value, room)) parts.push(encodePart(value, path, room));
  else if (Array.isArray(value)) {
    parts.push(containerHead(0x90, 0xdd, value.length));
    for (const [index, item] of value.entries()) appendParts(item, `${path}[${index}]`, room - 1, parts);
  } else {
    const entries = presentEntries(value as Record<string, unknown>);
    parts.push(containerHead(0x80, 0xdf, entries.length));
    for (const [key, item] of entries) {
      parts.push(encodePart(key, `${path} key`, room));
      appendParts(item, `${path}.${key}`, room - 1, parts);
    }
  }
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
function packable(value: unknown, path: string, room: number): unknown {
  if (typeof value === "object" && value !== null) return packableObject(value, path, room);
  if (typeof value === "number") return packableNumber(value);
  if (typeof value === "string" && !value.isWellFormed()) {
    throw new AirlockError("value_unsupported", `${path} is a string with half of a surrogate pair, which no text has`);
  }
  if (typeof value === "function" || typeof value === "symbol") throw unsupported(path, typeof value);
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

function packableObject(value: object, path: string, room: number): unknown {
  if (value instanceof Uint8Array || value instanceof Complex || value instanceof Float) return value;
  if (room < levels(value)) {
    throw new AirlockError("value_unsupported", `${path} is nested too deep, or contains itself`);
  }
  if (value instanceof Date) return packableDate(value, path);
  const inside = room - levels(value);
  if (value instanceof NdArray) return packableArray(value, path, inside);
  if (value instanceof Named) {
    return new Named(
      packable(value.name, `${path}.name`, inside) as string,
      packable(value.state, `${path}.state`, inside),
    );
  }
  if (Array.isArray(value) || value instanceof Set) return packableItems(value, path, inside);
  if (value instanceof Map) {
    const entries = [...value].map(([key, item]) => [
      packable(key, `${path} key`, inside),
      packable(item, `${path}[${String(key)}]`, inside),
    ]);
    return new Map(entries as [unknown, unknown][]);
  }
  if (!isPlainObject(value)) throw unsupported(path, value.constructor?.name ?? "object");
  return new Map(
    presentEntries(value).map(([key, item]) => [
      packable(key, `${path} key`, inside),
      packable(item, `${path}.${key}`, inside),
    ]),
  );
}

/** How many levels of nesting a value opens on the wire: an extension is one, and the array in it another. */
function levels(value: object): number {
  if (value instanceof Tuple || value instanceof Set || value instanceof Named || value instanceof Date) return 2;
  return value instanceof NdArray ? 2 : 1;
}

function packableItems(value: readonly unknown[] | Set<unknown>, path: string, room: number): unknown {
  const items = [...value].map((item, index) => packable(item, `${path}[${index}]`, room));
  if (value instanceof Tuple) return Tuple.from(items);
  if (value instanceof FrozenSet) return new FrozenSet(items);
  return value instanceof Set ? new Set(items) : items;
}

function unsupported(path: string, type: string): AirlockError {
  return new AirlockError("value_unsupported", `${path} is a ${type}, which cannot cross to Python`, {
    hint: "send a plain object, an array, or one of the value classes that comfy-airlock exports",
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
  const shape = packable([...array.shape], `${path}.shape`, room) as number[];
  return new NdArray(array.kind, packable(array.dtype, `${path}.dtype`, room), shape, array.data, array.order);
}

/**
 * What msgpackr unpacked, in the types of PROTOCOL.md: a dict is a plain object where every key is a harmless string,
 * else a Map; an int is a number where that is exact.
 */
function restored(value: unknown): unknown {
  if (value instanceof Map) {
    const entries = [...value].map(([key, item]): [unknown, unknown] => [restored(key), restored(item)]);
    const plain = entries.every(([key]) => typeof key === "string" && key !== "__proto__");
    return plain ? Object.fromEntries(entries) : new Map(entries);
  }
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) value[index] = restored(value[index]);
  }
  if (typeof value === "bigint" && Number.isSafeInteger(Number(value))) return Number(value);
  return value;
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
  const items = (payload: Uint8Array): unknown[] => {
    const value = restored(created.unpack(payload));
    if (!Array.isArray(value)) throw new AirlockError("value_invalid", "an extension's payload is not an array");
    return value;
  };
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
    fromWire: (bytes) => arrayFromWire(items(bytes)),
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

function complexToWire(value: Complex): Uint8Array {
  const view = new DataView(new ArrayBuffer(16));
  view.setFloat64(0, value.real, true);
  view.setFloat64(8, value.imag, true);
  return new Uint8Array(view.buffer);
}

function complexFromWire(payload: Uint8Array): Complex {
  if (payload.byteLength !== 16) throw new AirlockError("value_invalid", "a complex number has 16 bytes");
  const view = new DataView(payload.buffer, payload.byteOffset, 16);
  return new Complex(view.getFloat64(0, true), view.getFloat64(8, true));
}

function arrayFromWire([kind, dtype, shape, order, data, ...rest]: unknown[]): NdArray {
  const wellFormed =
    (kind === "tensor" || kind === "ndarray") &&
    Array.isArray(shape) &&
    shape.every((length) => Number.isSafeInteger(length) && length >= 0) &&
    (order === "C" || order === "F") &&
    data instanceof Uint8Array &&
    rest.length === 0;
  if (!wellFormed) throw new AirlockError("value_invalid", "an array needs kind, dtype, shape, order and data");
  return new NdArray(kind as ArrayKind, dtype, shape as number[], data as Uint8Array, order as "C" | "F");
}

function namedFromWire(items: unknown[]): Named {
  const [name, state] = items;
  if (typeof name !== "string" || items.length !== 2)
    throw new AirlockError("value_invalid", "a named value needs name and state");
  return new Named(name, state);
}
