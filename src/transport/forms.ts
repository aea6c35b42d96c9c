/**
 * The payloads of extensions that have a fixed form, checked when they are read. Pure; msgpack is `codec.ts`'s.
 *
 * Every check throws AirlockError `value_invalid`.
 */
import { AirlockError } from "./errors.ts";
import { type ArrayKind, Complex, Named, NdArray } from "./values.ts";

export function complexToWire(value: Complex): Uint8Array {
  const view = new DataView(new ArrayBuffer(16));
  view.setFloat64(0, value.real, true);
  view.setFloat64(8, value.imag, true);
  return new Uint8Array(view.buffer);
}

export function complexFromWire(payload: Uint8Array): Complex {
  if (payload.byteLength !== 16) throw new AirlockError("value_invalid", "a complex number has 16 bytes");
  const view = new DataView(payload.buffer, payload.byteOffset, 16);
  return new Complex(view.getFloat64(0, true), view.getFloat64(8, true));
}

export function arrayFromWire([kind, dtype, shape, order, data, ...rest]: readonly unknown[]): NdArray {
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

export function namedFromWire(items: readonly unknown[]): Named {
  const [name, state] = items;
  if (typeof name !== "string" || items.length !== 2)
    throw new AirlockError("value_invalid", "a named value needs name and state");
  return new Named(name, state);
}
