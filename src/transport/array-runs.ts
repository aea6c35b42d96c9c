/**
 * Lists of arrays that follow one another in a message's table, which stand in its value as one extension,
 * `[first, count]`: written out, each array by its own index. So all that reads values knows indexes alone. Pure.
 */
import { AirlockError } from "./errors.ts";
import { Extension } from "./extensions.ts";
import { joined, rewriteExtensions } from "./raw-extensions.ts";
import { checkValue, newHead, readHead } from "./scan.ts";

const depthMax = 128;

/** Arrays that the runs of one message may stand for: bounds what a few bytes can be written out to. */
const arraysMax = 1024 * 1024;

/** How the extension of a run goes on after its length, or, where that is fixed, begins: its code, and a list of two. */
const runMark = Uint8Array.of(Extension.array, 0x92);

/**
 * The value with each run as a list of indexes; the same bytes where there is none.
 *
 * @param arrays how many the table has.
 * @throws AirlockError `value_invalid` where a run goes beyond the table, or the value is none.
 */
export function withoutRuns(value: Uint8Array, arrays: number): Uint8Array {
  // Most messages have none. What only looks like one costs a look at all of it.
  if (!Buffer.from(value.buffer, value.byteOffset, value.byteLength).includes(runMark)) return value;
  checkValue(value, depthMax, true);
  let written = 0;
  return rewriteExtensions(value, {
    arrayRun: (payload) => {
      const [first, count] = readRun(payload);
      written += count;
      if (first + count > arrays || written > arraysMax) {
        throw new AirlockError(
          "value_invalid",
          `${count} arrays from ${first} on are named, and the table has ${arrays}`,
        );
      }
      return listOfIndexes(first, count);
    },
  });
}

function readRun(payload: Uint8Array): [number, number] {
  const [first, at] = readUnsigned(payload, 1);
  const [count, end] = readUnsigned(payload, at);
  if (end === payload.byteLength) return [first, count];
  throw malformed();
}

function malformed(): AirlockError {
  return new AirlockError("value_invalid", "a list of arrays is named by its first one and a count");
}

/** An unsigned int of at most 32 bits, and where it ends. */
function readUnsigned(bytes: Uint8Array, at: number): [number, number] {
  const head = newHead();
  readHead(bytes, at, head);
  const type = bytes[at] ?? 0xff;
  if (type < 0x80) return [type, at + 1];
  if (type < 0xcc || type > 0xce) throw malformed();
  let number = 0;
  for (const byte of bytes.subarray(head.start, head.start + head.payload)) number = number * 0x100 + byte;
  return [number, head.start + head.payload];
}

/** A msgpack list of extensions, each with an index of 32 bits. */
function listOfIndexes(first: number, count: number): Uint8Array {
  const head = Uint8Array.of(0xdd, count >>> 24, count >>> 16, count >>> 8, count);
  const indexes = Array.from({ length: count }, (_, place) => {
    const index = first + place;
    return Uint8Array.of(0xc7, 5, Extension.array, 0xce, index >>> 24, index >>> 16, index >>> 8, index);
  });
  return joined([head, ...indexes]);
}
