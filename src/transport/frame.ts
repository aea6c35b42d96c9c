/**
 * Frames: the 16-byte header and what follows it. Pure: bytes in, bytes out. `frame-assembler.ts` cuts streams into them.
 *
 * Owns the layout of PROTOCOL.md, "Frames". The header is read and rewritten in place, so that the relay can forward a
 * frame without decoding its body. Twin of `worker/src/comfy_airlock/wire/frame.py`; both read
 * `tests/vectors/frames.json`.
 */
import { AirlockError } from "./errors.ts";
import type { Limits } from "./limits.ts";

export const headerBytes = 16;
export const attachmentBytes = 16;
/** What a deadline and a parent take each. */
const prefixBytes = 4;

/** What a frame is for. Numbers missing here are reserved, see PROTOCOL.md. */
export const FrameKind = {
  hello: 1,
  welcome: 2,
  call: 3,
  result: 4,
  error: 5,
  cancel: 6,
  progress: 7,
  line: 8,
  event: 9,
  release: 10,
  credit: 11,
  return: 12,
  reclaim: 13,
} as const;
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind];

export const FrameFlag = {
  /** A u32 of milliseconds, the time that the call has left, stands between the attachments and the body. */
  deadline: 1,
  /** A u32 stands after that: the call on whose behalf this one is made, by its caller's number. */
  parent: 2,
  /** The body holds references. */
  references: 4,
  /** The body is a table of arrays, and a value that refers to it. */
  arrays: 8,
} as const;
const callFlags = FrameFlag.deadline | FrameFlag.parent;
const bodyFlags = FrameFlag.references | FrameFlag.arrays;
const knownFlags = callFlags | bodyFlags;
const kindMax = FrameKind.reclaim;

/** Kinds whose bodies may hold references and arrays. */
const valueKinds: ReadonlySet<number> = new Set([
  FrameKind.call,
  FrameKind.result,
  FrameKind.error,
  FrameKind.progress,
  FrameKind.event,
]);

/** Kinds that may have attachments. */
const attachingKinds: ReadonlySet<number> = new Set([
  FrameKind.call,
  FrameKind.result,
  FrameKind.progress,
  FrameKind.event,
  FrameKind.return,
]);

/** Kinds that say all they have to say without a body. */
const bodilessKinds: ReadonlySet<number> = new Set([FrameKind.return, FrameKind.reclaim]);

/** A block of a segment, as a frame names it: whole pages of 4096 bytes. */
export interface Attachment {
  readonly segment: number;
  /** The block's first page, counted from the segment's beginning. */
  readonly page: number;
  readonly pages: number;
  /** Which of the blocks that began at this page one after the other. */
  readonly generation: number;
}

/** A whole frame as bytes, header included. Accessors below read it in place. */
export type Frame = Uint8Array;

/** A u32, little-endian; 0 for bytes that are not there. */
export function readU32(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16)) >>> 0) +
    (bytes[at + 3] ?? 0) * 0x1000000
  );
}

function writeU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}

export function frameKind(frame: Frame): number {
  return frame[4] ?? 0;
}

export function setFrameKind(frame: Frame, kind: FrameKind): void {
  frame[4] = kind;
}

function frameFlags(frame: Frame): number {
  return frame[5] ?? 0;
}

/** Bytes after the header, as the header tells them. */
export function frameLength(frame: Frame): number {
  return readU32(frame, 0);
}

export function frameAttachmentCount(frame: Frame): number {
  return (frame[6] ?? 0) | ((frame[7] ?? 0) << 8);
}

/**
 * The blocks that a frame names, in order.
 *
 * @throws AirlockError `protocol_error` for one without pages, or of segment 0, which there is not.
 */
export function frameAttachments(frame: Frame): Attachment[] {
  return Array.from({ length: frameAttachmentCount(frame) }, (_, index) => {
    const at = headerBytes + index * attachmentBytes;
    const segment = readU32(frame, at);
    const page = readU32(frame, at + 4);
    const pages = readU32(frame, at + 8);
    if (segment === 0 || pages === 0) {
      throw new AirlockError("protocol_error", `attachment ${index} is no block: ${pages} pages of segment ${segment}`);
    }
    return { segment, page, pages, generation: readU32(frame, at + 12) };
  });
}

/** The destination when sent, the source when delivered. */
export function framePeer(frame: Frame): number {
  return readU32(frame, 8);
}

export function setFramePeer(frame: Frame, peer: number): void {
  writeU32(frame, 8, peer);
}

export function frameCall(frame: Frame): number {
  return readU32(frame, 12);
}

export function setFrameCall(frame: Frame, call: number): void {
  writeU32(frame, 12, call);
}

/** Milliseconds that the call has left, or `undefined` where the sender set no deadline. */
export function frameDeadlineMs(frame: Frame): number | undefined {
  if (!(frameFlags(frame) & FrameFlag.deadline)) return undefined;
  return readU32(frame, headerBytes + frameAttachmentCount(frame) * attachmentBytes);
}

/** Rewrites the time that a call has left; the frame has a deadline. */
export function setFrameDeadlineMs(frame: Frame, leftMs: number): void {
  writeU32(frame, headerBytes + frameAttachmentCount(frame) * attachmentBytes, wholeMs(leftMs));
}

/** The call on whose behalf this one is made, or `undefined` where there is none. */
export function frameParent(frame: Frame): number | undefined {
  return frameFlags(frame) & FrameFlag.parent ? readU32(frame, parentAt(frame)) : undefined;
}

/** Rewrites the number of a call's parent; the frame has one. */
export function setFrameParent(frame: Frame, parent: number): void {
  writeU32(frame, parentAt(frame), parent);
}

function parentAt(frame: Frame): number {
  const before = frameFlags(frame) & FrameFlag.deadline ? prefixBytes : 0;
  return headerBytes + frameAttachmentCount(frame) * attachmentBytes + before;
}

/** Whether the body holds references. */
export function frameHasReferences(frame: Frame): boolean {
  return (frameFlags(frame) & FrameFlag.references) !== 0;
}

/** Whether the body is a table of arrays, and a value that refers to it. */
export function frameHasArrays(frame: Frame): boolean {
  return (frameFlags(frame) & FrameFlag.arrays) !== 0;
}

/** Rounded up: a call with time left should not arrive as one without. */
function wholeMs(ms: number): number {
  return Math.min(0xffff_ffff, Math.max(0, Math.ceil(ms)));
}

/** The msgpack body, a view into `frame`. */
export function frameBody(frame: Frame): Uint8Array {
  return frame.subarray(headerBytes + bytesBeforeBody(frame));
}

/** Bytes between the header and the body, as the header tells them. */
function bytesBeforeBody(header: Uint8Array): number {
  const flags = frameFlags(header);
  const prefixes = (flags & FrameFlag.deadline ? 1 : 0) + (flags & FrameFlag.parent ? 1 : 0);
  return frameAttachmentCount(header) * attachmentBytes + prefixes * prefixBytes;
}

export interface FrameFields {
  readonly kind: FrameKind;
  readonly peer: number;
  readonly call: number;
  readonly deadlineMs?: number | undefined;
  /** The call on whose behalf this one is made, by the addressee's number. */
  readonly parent?: number | undefined;
  /** Whether the body holds references. */
  readonly hasReferences?: boolean;
  /** Whether the body is a table of arrays, and a value that refers to it. */
  readonly hasArrays?: boolean;
  readonly attachments?: readonly Attachment[] | undefined;
  /** The msgpack body, in as many parts as is handy for the sender. */
  readonly body?: Uint8Array | readonly Uint8Array[];
}

/**
 * Builds a frame.
 *
 * @param bytesMax what may follow the header; by default all that the header can tell.
 * @throws AirlockError `limit_exceeded` where more would.
 */
export function buildFrame(fields: FrameFields, bytesMax = 0xffff_ffff): Frame {
  const parts = fields.body === undefined ? [] : fields.body instanceof Uint8Array ? [fields.body] : fields.body;
  const prefixes = [fields.deadlineMs === undefined ? undefined : wholeMs(fields.deadlineMs), fields.parent].filter(
    (each) => each !== undefined,
  );
  const attachments = fields.attachments ?? [];
  const beforeBody = attachments.length * attachmentBytes + prefixes.length * prefixBytes;
  const length = parts.reduce((sum, part) => sum + part.byteLength, beforeBody);
  checkFrameLength(length, bytesMax);
  const frame = new Uint8Array(headerBytes + length);
  writeU32(frame, 0, length);
  frame[4] = fields.kind;
  frame[5] =
    (fields.deadlineMs === undefined ? 0 : FrameFlag.deadline) |
    (fields.parent === undefined ? 0 : FrameFlag.parent) |
    (fields.hasReferences ? FrameFlag.references : 0) |
    (fields.hasArrays ? FrameFlag.arrays : 0);
  frame[6] = attachments.length;
  frame[7] = attachments.length >>> 8;
  writeU32(frame, 8, fields.peer);
  writeU32(frame, 12, fields.call);
  let at = headerBytes;
  for (const { segment, page, pages, generation } of attachments) {
    writeU32(frame, at, segment);
    writeU32(frame, at + 4, page);
    writeU32(frame, at + 8, pages);
    writeU32(frame, at + 12, generation);
    at += attachmentBytes;
  }
  for (const prefix of prefixes) {
    writeU32(frame, at, prefix);
    at += prefixBytes;
  }
  for (const part of parts) {
    frame.set(part, at);
    at += part.byteLength;
  }
  return frame;
}

/**
 * Checks a frame's length, for a receiver against its header and for a sender before it builds the frame.
 *
 * @throws AirlockError `limit_exceeded`.
 */
export function checkFrameLength(length: number, bytesMax: number): void {
  if (length <= bytesMax) return;
  throw new AirlockError("limit_exceeded", `a frame of ${length} bytes is over the limit of ${bytesMax} bytes`, {
    hint: "send less at once: fewer images in a batch, or a smaller part of the value",
  });
}

/**
 * Checks a header before anything that follows it is buffered.
 *
 * @throws AirlockError `limit_exceeded` for a frame over a limit, `protocol_error` for anything else that is wrong.
 */
export function checkHeader(header: Uint8Array, limits: Limits): void {
  const length = frameLength(header);
  checkFrameLength(length, limits.frameBytesMax);
  const kind = frameKind(header);
  if (kind === 0 || kind > kindMax) throw new AirlockError("protocol_error", `unknown frame kind ${kind}`);
  const flags = frameFlags(header);
  if (flags & ~knownFlags) throw new AirlockError("protocol_error", `unknown frame flags 0x${flags.toString(16)}`);
  if (flags & callFlags && kind !== FrameKind.call) {
    throw new AirlockError("protocol_error", "only a call may have a deadline or a parent");
  }
  if (flags & bodyFlags && !valueKinds.has(kind)) {
    throw new AirlockError("protocol_error", `a frame of kind ${kind} holds neither references nor arrays`);
  }
  const attachments = frameAttachmentCount(header);
  if (attachments > limits.frameAttachmentsMax) {
    throw new AirlockError(
      "limit_exceeded",
      `${attachments} attachments are over the limit of ${limits.frameAttachmentsMax}`,
    );
  }
  if (attachments > 0 && !attachingKinds.has(kind)) {
    throw new AirlockError("protocol_error", `a frame of kind ${kind} has no attachments`);
  }
  const needed = bytesBeforeBody(header);
  if (length < needed)
    throw new AirlockError(
      "protocol_error",
      `a frame of ${length} bytes cannot hold the ${needed} its header promises`,
    );
  if (length > needed && bodilessKinds.has(kind)) {
    throw new AirlockError("protocol_error", `a frame of kind ${kind} has no body`);
  }
}
