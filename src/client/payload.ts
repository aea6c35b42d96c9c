/**
 * How much of a value is payload: the bytes of its arrays and texts, roughly, without encoding it.
 */
import { NdArray } from "../transport/values.ts";

/** Below this nothing large is looked for. */
const depthMax = 4;

export function payloadBytes(value: unknown, depth = depthMax): number {
  if (typeof value === "string") return value.length;
  if (typeof value !== "object" || value === null) return 0;
  if (value instanceof Uint8Array) return value.byteLength;
  if (value instanceof NdArray) return value.data.byteLength;
  if (depth === 0) return 0;
  const items = value instanceof Map || value instanceof Set ? [...value.values()] : Object.values(value);
  return items.reduce<number>((sum, item) => sum + payloadBytes(item, depth - 1), 0);
}
