/**
 * The msgpack extension codes of the wire. Twin of the constants in `worker/src/comfy_airlock/wire/extensions.py`.
 */
export const Extension = {
  tuple: 1,
  set: 2,
  frozenset: 3,
  complex: 4,
  array: 5,
  named: 6,
  /** An object that stays where it lives. */
  reference: 7,
  /** An int beyond 64 bits: big-endian two's complement, the code that msgpackr has for it. */
  bigint: 0x42,
} as const;

/** Extensions whose payload is msgpack itself. */
export const nestedExtensions: ReadonlySet<number> = new Set([
  Extension.tuple,
  Extension.set,
  Extension.frozenset,
  Extension.array,
  Extension.named,
  Extension.reference,
]);
