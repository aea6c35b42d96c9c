/** Peers without sockets: links that record what they are sent, and the frames that they send. */

import type { PackManifest } from "../../src/server/environments/manifest.ts";
import { decode, encode } from "../../src/transport/codec.ts";
import type { FrameSink } from "../../src/transport/connection.ts";
import { features, type Hello, type OpenResult } from "../../src/transport/control.ts";
import type { AirlockError } from "../../src/transport/errors.ts";
import {
  buildFrame,
  type Frame,
  type FrameFields,
  FrameKind,
  frameAttachments,
  frameBody,
  frameCall,
  frameHasArrays,
  frameKind,
  frameParent,
  framePeer,
} from "../../src/transport/frame.ts";
import type { Receipt } from "../../src/transport/outbox.ts";

/** A frame as a test compares it. */
export interface Sent {
  readonly kind: string;
  readonly peer: number;
  readonly call: number;
  readonly body: unknown;
  /** The call that it is made for, where it names one. */
  readonly parent?: number;
  /** The blocks that it names, each as segment, page, pages and generation; missing where it names none. */
  readonly attachments?: readonly (readonly number[])[];
}

const kindNames = new Map<number, string>(Object.entries(FrameKind).map(([name, kind]) => [kind, name]));

/** Leaves the indexes of arrays as what they are. */
const indexes = { at: (index: number) => Uint8Array.of(index) };

export function read(frame: Frame): Sent {
  const body = frameBody(frame);
  const parent = frameParent(frame);
  const attachments = frameAttachments(frame).map((each) => [each.segment, each.page, each.pages, each.generation]);
  return {
    kind: kindNames.get(frameKind(frame)) ?? "unknown",
    peer: framePeer(frame),
    call: frameCall(frame),
    body: body.byteLength === 0 ? undefined : decode(body, undefined, frameHasArrays(frame) ? indexes : undefined),
    ...(parent !== undefined && { parent }),
    ...(attachments.length > 0 && { attachments }),
  };
}

export class FakeLink implements FrameSink {
  readonly sent: Sent[] = [];
  /** How the link was closed, once it was. */
  closedBy: "end" | "abort" | undefined;
  cause: AirlockError | undefined;
  /** Whether the peer reads; what is sent to one that doesn't is held. */
  isReading = true;
  #held: { bytes: number; receipt: Receipt | undefined }[] = [];

  send(frame: Frame, receipt?: Receipt): void {
    if (this.closedBy === undefined) this.sent.push(read(frame));
    if (this.isReading || this.closedBy !== undefined) receipt?.passed(frame.byteLength);
    else this.#held.push({ bytes: frame.byteLength, receipt });
  }

  /** Bytes that were sent and that the peer has not read. */
  get heldBytes(): number {
    return this.#held.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** The peer reads all that is held. */
  readOn(): void {
    this.isReading = true;
    for (const { bytes, receipt } of this.#held.splice(0)) receipt?.passed(bytes);
  }

  end(cause?: AirlockError): void {
    this.#close("end", cause);
  }

  abort(cause?: AirlockError): void {
    this.#close("abort", cause);
  }

  #close(by: "end" | "abort", cause: AirlockError | undefined): void {
    this.closedBy ??= by;
    this.cause ??= cause;
    this.readOn();
  }

  /** What was sent since the last look, the error's code in place of its body. */
  take(): Sent[] {
    return this.sent.splice(0).map((sent) => (sent.kind === "error" ? { ...sent, body: codeOf(sent) } : sent));
  }
}

export function codeOf(sent: Sent): unknown {
  return (sent.body as { code?: unknown }).code;
}

export const hostHello: Hello = {
  protocol: { min: 1, max: 1 },
  features: [],
  role: "host",
  name: "test host",
  pid: 11,
};
export const workerHello: Hello = { ...hostHello, role: "worker", name: "", pid: 22 };

/** The same peers, as such that keep to credit. */
export const payingHello: Hello = { ...hostHello, features: [features.credit] };
export const payingWorkerHello: Hello = { ...workerHello, features: [features.credit] };

/** The same peers, as such that take segments where they have a lane. */
export const sharingHello: Hello = { ...hostHello, features: [features.line, features.segments] };
export const sharingWorkerHello: Hello = { ...sharingHello, role: "worker", name: "", pid: 22 };

export function frame(
  kind: keyof typeof FrameKind,
  peer: number,
  call: number,
  body?: unknown,
  rest: Pick<FrameFields, "deadlineMs" | "parent" | "hasReferences" | "attachments"> = {},
): Frame {
  const encoded = body === undefined ? {} : { body: encode(body) };
  return buildFrame({ kind: FrameKind[kind], peer, call, ...rest, ...encoded });
}

/** Lets everything run that only waits for promises. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise<void>((resolve) => setImmediate(resolve));
}

/** What the server answers to `open` for a pack of one worker. */
export function openedAs(peer: number): OpenResult {
  const folder = "/packs/blur";
  return {
    pack: peer,
    workers: [peer],
    audience: 0,
    fresh_process: false,
    nodes: {},
    name: "blur",
    folder,
    warnings: [],
  };
}

export function manifestOf(name: string, folder = `/packs/${name}`): PackManifest {
  return {
    name,
    folder,
    file: `${folder}/pyproject.toml`,
    dependencies: [],
    shareTorch: false,
    env: {},
    workers: 1,
    freshProcess: false,
    privateMemory: false,
    nodes: {},
    limits: {},
    warnings: [],
  };
}
