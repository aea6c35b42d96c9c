/**
 * Frames: the 16-byte header and what follows it. Pure: bytes in, bytes out.
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
} as const;
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind];

export const FrameFlag = {
  /** A u32 of milliseconds, the time that the call has left, stands between the attachments and the body. */
  deadline: 1,
  /** A u32 stands after that: the call on whose behalf this one is made, by its caller's number. */
  parent: 2,
  /** The body holds references. */
  references: 4,
} as const;
const knownFlags = FrameFlag.deadline | FrameFlag.parent | FrameFlag.references;
const callFlags = FrameFlag.deadline | FrameFlag.parent;
const kindMax = FrameKind.credit;

/** Kinds whose bodies may hold references. */
const referringKinds: ReadonlySet<number> = new Set([
  FrameKind.call,
  FrameKind.result,
  FrameKind.error,
  FrameKind.progress,
  FrameKind.event,
]);

/** A whole frame as bytes, header included. Accessors below read it in place. */
export type Frame = Uint8Array;

function readU32(bytes: Uint8Array, at: number): number {
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
  /** The msgpack body, in as many parts as is handy for the sender. */
  readonly body?: Uint8Array | readonly Uint8Array[];
}

/**
 * Builds a frame without attachments.
 *
 * @param bytesMax what may follow the header; by default all that the header can tell.
 * @throws AirlockError `limit_exceeded` where more would.
 */
export function buildFrame(fields: FrameFields, bytesMax = 0xffff_ffff): Frame {
  const parts = fields.body === undefined ? [] : fields.body instanceof Uint8Array ? [fields.body] : fields.body;
  const prefixes = [fields.deadlineMs === undefined ? undefined : wholeMs(fields.deadlineMs), fields.parent].filter(
    (each) => each !== undefined,
  );
  const length = parts.reduce((sum, part) => sum + part.byteLength, prefixes.length * prefixBytes);
  checkFrameLength(length, bytesMax);
  const frame = new Uint8Array(headerBytes + length);
  writeU32(frame, 0, length);
  frame[4] = fields.kind;
  frame[5] =
    (fields.deadlineMs === undefined ? 0 : FrameFlag.deadline) |
    (fields.parent === undefined ? 0 : FrameFlag.parent) |
    (fields.hasReferences ? FrameFlag.references : 0);
  writeU32(frame, 8, fields.peer);
  writeU32(frame, 12, fields.call);
  let at = headerBytes;
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
  if (flags & FrameFlag.references && !referringKinds.has(kind)) {
    throw new AirlockError("protocol_error", `a frame of kind ${kind} holds no references`);
  }
  const attachments = frameAttachmentCount(header);
  if (attachments > limits.frameAttachmentsMax) {
    throw new AirlockError(
      "limit_exceeded",
      `${attachments} attachments are over the limit of ${limits.frameAttachmentsMax}`,
    );
  }
  if (attachments > 0) throw new AirlockError("protocol_error", "attachments were not negotiated on this connection");
  const needed = bytesBeforeBody(header);
  if (length < needed)
    throw new AirlockError(
      "protocol_error",
      `a frame of ${length} bytes cannot hold the ${needed} its header promises`,
    );
}

/** A first allocation for a frame that did not arrive whole; a header alone should not reserve its whole length. */
const partialBytesMin = 64 * 1024;

/**
 * Cuts a byte stream into frames, however it is chopped up.
 *
 * Frames that lie whole in a chunk are handed on as views into it, without a copy: a sink that keeps one past its
 * return must copy it.
 */
export class FrameAssembler {
  readonly #limits: Limits;
  readonly #admit: (header: Uint8Array) => void;
  #partial = new Uint8Array(0);
  #have = 0;

  /** @param admit refuses, by throwing, a frame whose header is well-formed but out of place here. */
  constructor(limits: Limits, admit: (header: Uint8Array) => void = () => undefined) {
    this.#limits = limits;
    this.#admit = admit;
  }

  /** Bytes of an unfinished frame that are held back. */
  get pendingBytes(): number {
    return this.#have;
  }

  /**
   * Takes the next bytes of the stream and passes on each frame that they complete.
   *
   * @throws AirlockError as {@link checkHeader} and `admit`; the stream is unusable afterwards.
   */
  push(chunk: Uint8Array, sink: (frame: Frame) => void): void {
    let at = 0;
    while (at < chunk.byteLength) {
      if (this.#have > 0) {
        at += this.#continuePartial(chunk.subarray(at), sink);
        continue;
      }
      const rest = chunk.byteLength - at;
      if (rest >= headerBytes) {
        const total = headerBytes + readU32(chunk, at);
        // One view serves the check too, which looks at the header alone.
        const frame = chunk.subarray(at, at + total);
        this.#check(frame);
        if (rest >= total) {
          sink(frame);
          at += total;
          continue;
        }
      }
      this.#append(chunk.subarray(at));
      return;
    }
  }

  /** Adds to the unfinished frame and passes it on once whole; returns how many bytes of `rest` it took. */
  #continuePartial(rest: Uint8Array, sink: (frame: Frame) => void): number {
    const target = this.#have < headerBytes ? headerBytes : headerBytes + frameLength(this.#partial);
    const taken = rest.subarray(0, target - this.#have);
    this.#append(taken);
    if (this.#have < headerBytes) return taken.byteLength;
    if (target === headerBytes) this.#check(this.#partial.subarray(0, headerBytes));
    if (this.#have === headerBytes + frameLength(this.#partial)) {
      const frame = this.#partial.subarray(0, this.#have);
      this.#partial = new Uint8Array(0);
      this.#have = 0;
      sink(frame);
    }
    return taken.byteLength;
  }

  #check(header: Uint8Array): void {
    checkHeader(header, this.#limits);
    this.#admit(header);
  }

  #append(bytes: Uint8Array): void {
    const needed = this.#have + bytes.byteLength;
    if (needed > this.#partial.byteLength) {
      const grown = new Uint8Array(
        Math.max(needed, Math.min(partialBytesMin, needed * 2), this.#partial.byteLength * 2),
      );
      grown.set(this.#partial.subarray(0, this.#have));
      this.#partial = grown;
    }
    this.#partial.set(bytes, this.#have);
    this.#have = needed;
  }
}
