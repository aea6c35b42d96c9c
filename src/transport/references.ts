/**
 * References as they cross: `[0, id, kind, type]` for an object of the sender's, `[1, id]` for one of the receiver's
 * that comes home. Pure data, and what the codec asks for where it meets one; who owns what is known further up.
 */
import { AirlockError } from "./errors.ts";

/** What may be done with an object that a reference names. */
export const referenceKinds = ["function", "iterator", "async_iterator", "object"] as const;
export type ReferenceKind = (typeof referenceKinds)[number];

/** What a reference says of an object of its sender's. */
export interface ReferredObject {
  readonly kind: ReferenceKind;
  /** `module:qualified.name`, for people. */
  readonly type: string;
}

export class Reference {
  readonly id: number;
  /** Missing where the object is the receiver's own, and comes home. */
  readonly object: ReferredObject | undefined;

  constructor(id: number, object?: ReferredObject) {
    this.id = id;
    this.object = object;
  }
}

/** Makes references of objects that have no form of their own, for one message. */
export interface ReferenceSender {
  /** @returns undefined where the object cannot cross by reference either. */
  toReference(value: object): Reference | undefined;
}

/** Finds what the references in one message stand for. */
export interface ReferenceReceiver {
  /** @throws AirlockError `reference_gone` where there is no such object here. */
  fromReference(reference: Reference): unknown;
}

/** What the references in a value stand for that is passed on without being decoded. Keeps all of it reachable. */
export interface RawReferences extends ReferenceReceiver {
  /** What to send on in the place of one of them. */
  toSend(reference: Reference): object;
  /** All that they stand for. */
  all(): Iterable<object>;
}

export function referenceItems({ id, object }: Reference): unknown[] {
  return object === undefined ? [1, id] : [0, id, object.kind, object.type];
}

/** @throws AirlockError `value_invalid`. */
export function referenceFrom(items: readonly unknown[]): Reference {
  const [owner, id, kind, type, ...rest] = items;
  const isId = Number.isSafeInteger(id) && (id as number) >= 0;
  if (isId && owner === 1 && items.length === 2) return new Reference(id as number);
  const isKnown = referenceKinds.includes(kind as ReferenceKind) && typeof type === "string" && rest.length === 0;
  if (isId && owner === 0 && isKnown) return new Reference(id as number, { kind: kind as ReferenceKind, type });
  throw new AirlockError("value_invalid", "a reference is [0, id, kind, type] or [1, id]");
}
