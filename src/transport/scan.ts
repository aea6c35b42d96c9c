/**
 * Walks msgpack without decoding it: finds where a value ends, and cuts containers into their still encoded elements.
 *
 * Every body is scanned before msgpackr sees it, because msgpackr has neither a depth limit nor a closed set of
 * extensions (its own ones can carry regular expressions and object graphs), and repairs text that is not UTF-8, which
 * Python refuses. The scan allocates nothing per value, but for longer strings.
 */
import { isUtf8 } from "node:buffer";
import { AirlockError } from "./errors.ts";
import { Extension, nestedExtensions } from "./extensions.ts";
import type { RawValue } from "./values.ts";

/** What a msgpack value starts with: where its payload is, and how many values it contains. */
export interface Head {
  /** Offset of the first byte after the head. */
  start: number;
  /** Payload bytes that are not values themselves. */
  payload: number;
  /** Values contained: elements of an array, keys and values of a map. */
  children: number;
  /** The extension code, or `undefined`. */
  extension: number | undefined;
  /** Whether the payload is a string. */
  isText: boolean;
}

function truncated(): AirlockError {
  return new AirlockError("value_invalid", "the value ends in the middle");
}

function readLength(bytes: Uint8Array, at: number, size: number): number {
  if (at + size > bytes.byteLength) throw truncated();
  let value = 0;
  for (let index = 0; index < size; index++) value = value * 256 + (bytes[at + index] ?? 0);
  return value;
}

/** Scalar types 0xc0 to 0xd3 with a payload of fixed length. */
const scalarBytes: Readonly<Record<number, number>> = {
  192: 0,
  194: 0,
  195: 0,
  202: 4,
  203: 8,
  204: 1,
  205: 2,
  206: 4,
  207: 8,
  208: 1,
  209: 2,
  210: 4,
  211: 8,
};

/** Length-prefixed types: size of the prefix in bytes. */
const prefixBytes: Readonly<Record<number, number>> = {
  196: 1,
  197: 2,
  198: 4,
  199: 1,
  200: 2,
  201: 4,
  217: 1,
  218: 2,
  219: 4,
  220: 2,
  221: 4,
  222: 2,
  223: 4,
};

export function readHead(bytes: Uint8Array, at: number, head: Head): void {
  const type = bytes[at];
  if (type === undefined) throw truncated();
  head.start = at + 1;
  head.payload = 0;
  head.children = 0;
  head.extension = undefined;
  head.isText = false;
  if (type < 0x80 || type >= 0xe0) return;
  if (type < 0x90) head.children = (type & 0x0f) * 2;
  else if (type < 0xa0) head.children = type & 0x0f;
  else if (type < 0xc0) {
    head.payload = type & 0x1f;
    head.isText = true;
  } else if (type >= 0xd4 && type <= 0xd8) {
    head.payload = 1 << (type - 0xd4);
    head.extension = readExtensionCode(bytes, at + 1);
    head.start = at + 2;
  } else readLongHead(bytes, at, type, head);
  if (head.start + head.payload > bytes.byteLength) throw truncated();
}

function readLongHead(bytes: Uint8Array, at: number, type: number, head: Head): void {
  const scalar = scalarBytes[type];
  if (scalar !== undefined) {
    head.payload = scalar;
    return;
  }
  const prefix = prefixBytes[type];
  if (prefix === undefined) throw new AirlockError("value_invalid", `0x${type.toString(16)} starts no msgpack value`);
  const length = readLength(bytes, at + 1, prefix);
  head.start = at + 1 + prefix;
  if (type >= 222) head.children = length * 2;
  else if (type >= 220) head.children = length;
  else head.payload = length;
  head.isText = type >= 217 && type <= 219;
  if (type >= 199 && type <= 201) {
    head.extension = readExtensionCode(bytes, head.start);
    head.start += 1;
  }
}

function readExtensionCode(bytes: Uint8Array, at: number): number {
  const code = bytes[at];
  if (code === undefined) throw truncated();
  return code;
}

export function newHead(): Head {
  return { start: 0, payload: 0, children: 0, extension: undefined, isText: false };
}

/** Texts up to this length are looked at byte by byte: most are ASCII, and that needs no view. */
const shortTextBytesMax = 32;

function checkText(bytes: Uint8Array, start: number, end: number): void {
  if (end - start <= shortTextBytesMax) {
    let at = start;
    while (at < end && (bytes[at] ?? 0) < 0x80) at += 1;
    if (at === end) return;
  }
  if (!isUtf8(bytes.subarray(start, end))) throw new AirlockError("value_invalid", "a string is not UTF-8");
}

/**
 * Returns the offset just after the value that starts at `at`, having checked all of it.
 *
 * @param depthMax how many arrays, maps and extensions may lie inside one another.
 * @param mayRefer whether references have a meaning where the value goes.
 * @throws AirlockError `value_invalid` where the bytes are not one well-formed value within `depthMax`.
 */
export function skipValue(bytes: Uint8Array, at: number, depthMax: number, mayRefer = false): number {
  const head = newHead();
  /** Values still to come at each level of nesting. */
  const remaining: number[] = [1];
  let offset = at;
  while (remaining.length > 0) {
    const left = remaining[remaining.length - 1] ?? 0;
    if (left === 0) {
      remaining.pop();
      continue;
    }
    remaining[remaining.length - 1] = left - 1;
    readHead(bytes, offset, head);
    offset = head.start + head.payload;
    if (head.isText) checkText(bytes, head.start, offset);
    const room = depthMax - (remaining.length - 1);
    if (head.extension !== undefined)
      checkExtension(bytes.subarray(head.start, offset), head.extension, room - 1, mayRefer);
    if (head.children > 0) {
      if (room <= 0) throw tooDeep();
      remaining.push(head.children);
    }
  }
  return offset;
}

function tooDeep(): AirlockError {
  return new AirlockError("value_invalid", "the value is nested too deep");
}

function checkExtension(payload: Uint8Array, code: number, room: number, mayRefer: boolean): void {
  if (code === Extension.bigint || code === Extension.complex) return;
  if (!nestedExtensions.has(code)) throw new AirlockError("value_invalid", `unknown extension ${code}`);
  if (code === Extension.reference && !mayRefer) {
    throw new AirlockError("value_invalid", "a reference stands where it has no meaning");
  }
  if (room < 0) throw tooDeep();
  if (skipValue(payload, 0, room, mayRefer) !== payload.byteLength)
    throw new AirlockError("value_invalid", "an extension has trailing bytes");
}

/** Checks that `bytes` are exactly one well-formed value; parameters as for {@link skipValue}. */
export function checkValue(bytes: Uint8Array, depthMax: number, mayRefer = false): void {
  if (skipValue(bytes, 0, depthMax, mayRefer) !== bytes.byteLength)
    throw new AirlockError("value_invalid", "bytes follow the value");
}

/** What a raw value is, as far as its first bytes tell. */
export type RawKind = "list" | "tuple" | "map" | "other";

function openContainer(raw: RawValue): { kind: RawKind; bytes: Uint8Array; start: number; children: number } {
  const head = newHead();
  readHead(raw.bytes, 0, head);
  if (head.extension === Extension.tuple) {
    const inner = raw.part(raw.bytes.subarray(head.start, head.start + head.payload));
    // Not by recursion: a tuple's payload is an array, and bytes from a peer could nest for ever.
    if (!isList(inner.bytes[0])) throw new AirlockError("value_invalid", "an extension's payload is not an array");
    return { ...openContainer(inner), kind: "tuple" };
  }
  const type = raw.bytes[0] ?? 0;
  const isMap = (type >= 0x80 && type < 0x90) || (type >= 222 && type <= 223);
  return {
    kind: isMap ? "map" : isList(type) ? "list" : "other",
    bytes: raw.bytes,
    start: head.start,
    children: head.children,
  };
}

function isList(type: number | undefined): boolean {
  return type !== undefined && ((type >= 0x90 && type < 0xa0) || type === 220 || type === 221);
}

export function rawKind(raw: RawValue): RawKind {
  return openContainer(raw).kind;
}

/** The elements of a raw list or tuple; of a map, its keys and values in turn. Anything else has none. */
export function rawElements(raw: RawValue, depthMax = 128): RawValue[] {
  const { bytes, start, children } = openContainer(raw);
  const elements: RawValue[] = [];
  let at = start;
  for (let index = 0; index < children; index++) {
    const end = skipValue(bytes, at, depthMax, raw.references !== undefined);
    elements.push(raw.part(bytes.subarray(at, end)));
    at = end;
  }
  return elements;
}
