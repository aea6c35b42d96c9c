/**
 * Finds and replaces, in a value that is not decoded, what means something beside its message only: references, and
 * indexes of arrays. All else keeps its exact bytes, and so its types.
 *
 * Arrays and maps say how many values follow and not how long these are, so they are copied as they are; only the
 * extensions around what is replaced get a new length. Pure.
 */
import { Extension, nestedExtensions } from "./extensions.ts";
import { newHead, readHead } from "./scan.ts";

/** Each gets an extension's payload, and returns the bytes to stand in the place of the extension, or undefined to leave it. */
export interface Replacers {
  readonly reference?: (payload: Uint8Array) => Uint8Array | undefined;
  readonly arrayIndex?: (payload: Uint8Array) => Uint8Array | undefined;
  /** A list of arrays: the index of the first one, and how many. */
  readonly arrayRun?: (payload: Uint8Array) => Uint8Array | undefined;
}

/**
 * Shows the replacers each reference and each index of an array in a value, in order.
 *
 * @param bytes one value, or several one after the other, that were checked.
 * @returns the value with what was replaced; the same bytes where nothing was.
 */
export function rewriteExtensions(bytes: Uint8Array, replacers: Replacers): Uint8Array {
  const parts: Uint8Array[] = [];
  const head = newHead();
  let copied = 0;
  for (let at = 0; at < bytes.byteLength; ) {
    readHead(bytes, at, head);
    const end = head.start + head.payload;
    const rewritten = rewriteExtension(bytes.subarray(head.start, end), head.extension, replacers);
    if (rewritten !== undefined) {
      parts.push(bytes.subarray(copied, at), ...rewritten);
      copied = end;
    }
    at = end;
  }
  if (copied === 0) return bytes;
  parts.push(bytes.subarray(copied));
  return joined(parts);
}

/** The extension with what was replaced in it, in parts; undefined where nothing was. */
function rewriteExtension(
  payload: Uint8Array,
  code: number | undefined,
  replacers: Replacers,
): Uint8Array[] | undefined {
  if (code === undefined || !nestedExtensions.has(code)) return undefined;
  const replace = replacerFor(code, payload, replacers);
  if (replace !== undefined) {
    const replaced = replace(payload);
    return replaced === undefined ? undefined : [replaced];
  }
  const inner = rewriteExtensions(payload, replacers);
  return inner === payload ? undefined : [extensionHead(code, inner.byteLength), inner];
}

function replacerFor(code: number, payload: Uint8Array, replacers: Replacers): Replacers["reference"] {
  if (code === Extension.reference) return replacers.reference;
  if (code !== Extension.array) return undefined;
  if (isUnsigned(payload[0])) return replacers.arrayIndex;
  // An array that stands for itself holds a list of five.
  return payload[0] === runHead ? replacers.arrayRun : undefined;
}

/** How a run of arrays begins: a list of two. */
const runHead = 0x92;

/** Whether a value that begins like this is an unsigned int. */
export function isUnsigned(type: number | undefined): boolean {
  return type !== undefined && (type < 0x80 || (type >= 0xcc && type <= 0xcf));
}

function extensionHead(code: number, length: number): Uint8Array {
  if (length < 0x100) return Uint8Array.of(0xc7, length, code);
  if (length < 0x1_0000) return Uint8Array.of(0xc8, length >>> 8, length, code);
  return Uint8Array.of(0xc9, length >>> 24, length >>> 16, length >>> 8, length, code);
}

/** Bytes one after the other. */
export function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return whole;
}
