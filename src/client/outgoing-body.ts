/**
 * The body of a message that is being written: its value, what stands beside that, and whose that is until it has left.
 *
 * Small messages are written at once. Large arrays go into memory that the addressee shares, which may have to be made, or
 * passed to it, first.
 */
import { bodyWithTable } from "../transport/array-body.ts";
import { encodeParts } from "../transport/codec.ts";
import { AirlockError } from "../transport/errors.ts";
import type { ArrayPlan } from "./memory/array-plan.ts";
import type { PairLeases } from "./memory/pair-leases.ts";
import type { Placed } from "./memory/placed.ts";
import type { Draft } from "./references.ts";

/** Invariant: what it holds counts from when it is written; {@link undo} takes all of it back, unless it has left. */
export class OutgoingBody {
  readonly draft: Draft;
  readonly parts: readonly Uint8Array[];
  /** Its arrays, where it has a table of them. */
  readonly placed: Placed | undefined;

  constructor(draft: Draft, parts: readonly Uint8Array[], placed?: Placed) {
    this.draft = draft;
    this.parts = parts;
    this.placed = placed;
  }

  get hasReferences(): boolean {
    return this.draft.hasReferences;
  }

  /** The message has left. */
  sent(): void {
    this.draft.sent();
    this.placed?.sent();
  }

  /** The message will not be sent; nothing happens where it has left. */
  undo(): void {
    this.draft.undo();
    this.placed?.undo();
  }
}

/**
 * Writes a value.
 *
 * @param leases missing where its arrays must stand in it.
 * @returns a promise only where memory is waited for.
 * @throws AirlockError `value_unsupported`, `limit_exceeded` where there is no memory, or as the server answers.
 */
export function writeBody(
  value: unknown,
  newDraft: () => Draft,
  leases: PairLeases | undefined,
): OutgoingBody | Promise<OutgoingBody> {
  const plan = leases?.plan();
  if (plan === undefined || leases === undefined) return writeInline(value, newDraft);
  const draft = newDraft();
  let isPending = false;
  try {
    const parts = encodeParts(value, draft, plan);
    if (plan.isEmpty) return new OutgoingBody(draft, parts);
    const placed = plan.placeNow();
    if (placed !== undefined) return new OutgoingBody(draft, bodyWithTable(placed.entries, parts), placed);
    isPending = true;
    return place({ value, newDraft, leases, draft, parts, plan });
  } catch (error) {
    draft.undo();
    throw error;
  } finally {
    if (!isPending) plan.close();
  }
}

function writeInline(value: unknown, newDraft: () => Draft): OutgoingBody {
  const draft = newDraft();
  try {
    return new OutgoingBody(draft, encodeParts(value, draft));
  } catch (error) {
    draft.undo();
    throw error;
  }
}

interface Pending {
  readonly value: unknown;
  readonly newDraft: () => Draft;
  readonly leases: PairLeases;
  readonly draft: Draft;
  readonly parts: readonly Uint8Array[];
  readonly plan: ArrayPlan;
}

async function place({ value, newDraft, leases, draft, parts, plan }: Pending): Promise<OutgoingBody> {
  try {
    const placed = await plan.placeSoon();
    return new OutgoingBody(draft, bodyWithTable(placed.entries, parts), placed);
  } catch (error) {
    try {
      if (!isRefusal(error)) throw error;
      leases.refuse();
      // Before what was written is undone, so that nothing is let go of that is in both.
      return writeInline(value, newDraft);
    } finally {
      draft.undo();
    }
  } finally {
    plan.close();
  }
}

/** Waits for a body, unless somebody loses interest: throws the signal's reason then, and what is written is undone. */
export async function unlessAborted(
  writing: Promise<OutgoingBody>,
  signals: readonly (AbortSignal | undefined)[],
): Promise<OutgoingBody> {
  const aborted = Promise.withResolvers<never>();
  const abandon = (event: Event): void => aborted.reject((event.target as AbortSignal).reason);
  for (const signal of signals) {
    if (signal?.aborted) aborted.reject(signal.reason);
    signal?.addEventListener("abort", abandon, { once: true });
  }
  try {
    return await Promise.race([writing, aborted.promise]);
  } catch (error) {
    writing.then(
      (body) => body.undo(),
      () => undefined,
    );
    throw error;
  } finally {
    for (const signal of signals) signal?.removeEventListener("abort", abandon);
  }
}

/** The server says that this peer can't be passed segments: all that it gets must stand in messages. */
function isRefusal(error: unknown): boolean {
  return error instanceof AirlockError && error.code === "bad_request";
}
