/** Peers without sockets: links that record what they are sent, and the sessions that hold them. */

import type { PackManifest } from "../../src/server/environments/manifest.ts";
import { decode, encode } from "../../src/transport/codec.ts";
import type { FrameSink } from "../../src/transport/connection.ts";
import type { Hello } from "../../src/transport/control.ts";
import type { AirlockError } from "../../src/transport/errors.ts";
import {
  buildFrame,
  type Frame,
  FrameKind,
  frameBody,
  frameCall,
  frameKind,
  framePeer,
} from "../../src/transport/frame.ts";

/** A frame as a test compares it. */
export interface Sent {
  readonly kind: string;
  readonly peer: number;
  readonly call: number;
  readonly body: unknown;
}

const kindNames = new Map<number, string>(Object.entries(FrameKind).map(([name, kind]) => [kind, name]));

export function read(frame: Frame): Sent {
  const body = frameBody(frame);
  return {
    kind: kindNames.get(frameKind(frame)) ?? "unknown",
    peer: framePeer(frame),
    call: frameCall(frame),
    body: body.byteLength === 0 ? undefined : decode(body),
  };
}

export class FakeLink implements FrameSink {
  readonly sent: Sent[] = [];
  /** How the link was closed, once it was. */
  closedBy: "end" | "abort" | undefined;
  cause: AirlockError | undefined;

  send(frame: Frame): void {
    if (this.closedBy === undefined) this.sent.push(read(frame));
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

export function frame(
  kind: keyof typeof FrameKind,
  peer: number,
  call: number,
  body?: unknown,
  deadlineMs?: number,
): Frame {
  const encoded = body === undefined ? {} : { body: encode(body) };
  return buildFrame({ kind: FrameKind[kind], peer, call, deadlineMs, ...encoded });
}

/** Lets everything run that only waits for promises. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise<void>((resolve) => setImmediate(resolve));
}

export function manifestOf(name: string, folder = `/packs/${name}`): PackManifest {
  return { name, folder, file: `${folder}/pyproject.toml`, dependencies: [], shareTorch: false, env: {}, warnings: [] };
}
