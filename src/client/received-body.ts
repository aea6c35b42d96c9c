/**
 * The body of a frame that has arrived: read with what finds its references and arrays, or let go of unread.
 */
import { splitBody } from "../transport/array-body.ts";
import { type ArrayReceiver, arrayOf } from "../transport/array-table.ts";
import { AirlockError } from "../transport/errors.ts";
import {
  type Attachment,
  type Frame,
  frameAttachmentCount,
  frameAttachments,
  frameBody,
  frameHasArrays,
  frameHasReferences,
} from "../transport/frame.ts";
import type { PairLeases } from "./memory/pair-leases.ts";
import type { References } from "./references.ts";

export interface ReceivedBody {
  readonly bytes: Uint8Array;
  readonly hasReferences: boolean;
  readonly hasArrays: boolean;
  /** The blocks that its frame names. */
  readonly blocks: readonly Attachment[];
}

/** Reads a value, encoded, with what its references and the indexes of its arrays stand for. */
export type ReadBody<T> = (value: Uint8Array, references?: References, arrays?: ArrayReceiver) => T;

/** A frame is a view into the socket's buffer; what a caller gets must stay. */
export function receivedBody(frame: Frame): ReceivedBody {
  return {
    bytes: frameBody(frame).slice(),
    hasReferences: frameHasReferences(frame),
    hasArrays: frameHasArrays(frame),
    blocks: frameAttachmentCount(frame) === 0 ? [] : frameAttachments(frame),
  };
}

/** Throws AirlockError `value_invalid`, `protocol_error` for blocks of nobody's, or as `read` does. */
export function readBody<T>(
  body: ReceivedBody,
  references: References | undefined,
  leases: PairLeases | undefined,
  read: ReadBody<T>,
): T {
  const { bytes, hasArrays, blocks } = body;
  if (!hasArrays) {
    if (blocks.length > 0) letGo(blocks, leases);
    return read(bytes, references);
  }
  if (leases === undefined) return read(...inlineArrays(body, references));
  const { value, arrays } = leases.receive(bytes, blocks);
  try {
    return read(value, references, arrays);
  } finally {
    arrays.settle();
  }
}

/** Of a peer without segments: its arrays all stand in their table. */
function inlineArrays({ bytes, blocks }: ReceivedBody, references: References | undefined): Parameters<ReadBody<void>> {
  if (blocks.length > 0) throw unexpectedBlocks();
  const { table, value } = splitBody(bytes, []);
  const memoryOf = (): never => {
    throw unexpectedBlocks();
  };
  return [value, references, { at: (index) => arrayOf(table.entry(index), memoryOf) }];
}

/** Gives back what came in a message that nobody waits for. */
export function discardBody(
  { bytes, hasReferences, blocks }: ReceivedBody,
  references: References | undefined,
  leases: PairLeases | undefined,
): void {
  if (hasReferences) references?.discard(bytes);
  if (blocks.length > 0) letGo(blocks, leases);
}

function letGo(blocks: readonly Attachment[], leases: PairLeases | undefined): void {
  if (leases === undefined) throw unexpectedBlocks();
  leases.discard(blocks);
}

function unexpectedBlocks(): AirlockError {
  return new AirlockError("protocol_error", "a frame names blocks of memory, which were not agreed on");
}
