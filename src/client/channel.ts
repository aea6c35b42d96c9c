/**
 * What frames go over, both ways: the relay, which leads to every pack, or a line, which leads to one worker.
 *
 * Sorts what arrives: answers to the calls made here, and for all else the pair that it is about. A call's numbers mean
 * something on its own channel only.
 */
import type { Clock } from "../transport/clock.ts";
import { encode } from "../transport/codec.ts";
import { progressToWire } from "../transport/control.ts";
import { AirlockError } from "../transport/errors.ts";
import {
  buildFrame,
  type Frame,
  FrameKind,
  frameAttachmentCount,
  frameAttachments,
  frameBody,
  frameCall,
  frameDeadlineMs,
  frameHasReferences,
  frameKind,
  frameParent,
  framePeer,
} from "../transport/frame.ts";
import type { Limits } from "../transport/limits.ts";
import { IncomingCall, type ProgressReport, type Replier } from "./incoming-call.ts";
import type { PairLeases } from "./memory/pair-leases.ts";
import type { OutgoingBody } from "./outgoing-body.ts";
import { type OutgoingCall, OutgoingCalls } from "./outgoing-calls.ts";
import type { Outlet } from "./outlet.ts";
import { discardBody, type ReceivedBody, receivedBody } from "./received-body.ts";
import type { References } from "./references.ts";
import { errorBody } from "./thrown.ts";

/** Who is at the other end, for what is no answer. */
export interface Recipient {
  /** What its calls say of themselves. */
  readonly name: string;
  readonly references: References;
  /** Missing where no memory is shared with it. */
  readonly leases: PairLeases | undefined;
  receiveCall(call: IncomingCall, body: ReceivedBody): void;
  receiveEvent(body: ReceivedBody): void;
}

export interface ChannelOptions {
  /** Whether it leads to one peer alone, so that what that does may end it. */
  readonly isLine?: boolean;
  readonly outlet: Outlet;
  readonly clock: Clock;
  readonly limits: Limits;
  /** The recipient of what a peer sends; undefined for one that this host has nothing to do with any more. */
  recipientOf(peer: number): Recipient | undefined;
  /** The callee has not answered for long what was given up; missing where others look to that. */
  readonly onOverdue?: () => void;
}

export class Channel {
  readonly calls: OutgoingCalls;
  readonly #options: ChannelOptions;
  readonly #incoming = new Map<number, IncomingCall>();
  readonly #ended = Promise.withResolvers<void>();

  constructor(options: ChannelOptions) {
    this.#options = options;
    this.calls = new OutgoingCalls(options.outlet, options.clock, options.limits.graceMs, options.onOverdue);
  }

  /** Sends a frame that is about no call. Settles once it has left, or never will. */
  async send(frame: Frame, onLeft: () => void): Promise<void> {
    const left = Promise.withResolvers<void>();
    this.#options.outlet.send(frame, () => {
      onLeft();
      left.resolve();
    });
    await Promise.race([left.promise, this.#ended.promise]);
  }

  /**
   * Takes a frame that has arrived; the bytes need be valid only until this returns.
   *
   * @throws AirlockError `protocol_error` where a frame of its kind has no meaning here.
   */
  receive(frame: Frame): void {
    const recipient = this.#options.recipientOf(framePeer(frame));
    switch (frameKind(frame)) {
      case FrameKind.result:
      case FrameKind.error:
      case FrameKind.progress:
        // An answer may cross the cancel of its call.
        if (!this.calls.receive(frame)) discard(frame, recipient);
        return;
      case FrameKind.call:
        return this.#receiveCall(frame, recipient);
      case FrameKind.cancel:
        return this.#incoming.get(frameCall(frame))?.cancel();
      case FrameKind.event:
        return recipient?.receiveEvent(receivedBody(frame));
      case FrameKind.release:
        return recipient?.references.released(frameBody(frame));
      case FrameKind.return:
        return this.#receiveReturn(frame, recipient);
      case FrameKind.reclaim:
        return recipient?.leases?.reclaim();
      default:
        throw new AirlockError("protocol_error", `frame kind ${frameKind(frame)} is out of place here`);
    }
  }

  #receiveCall(frame: Frame, recipient: Recipient | undefined): void {
    const number = frameCall(frame);
    const parentNumber = frameParent(frame);
    const parent = parentNumber === undefined ? undefined : this.calls.find(parentNumber);
    const replier = new FrameReplier(this.#options, framePeer(frame), number, recipient?.name ?? "", () => {
      const call = this.#incoming.get(number);
      this.#incoming.delete(number);
      if (call !== undefined) parent?.children.delete(call);
    });
    if (recipient === undefined) {
      return replier.fail(new AirlockError("pack_not_open", "the host has closed the pack that calls"));
    }
    if (parentNumber !== undefined && parent === undefined) {
      discard(frame, recipient);
      return replier.fail(
        new AirlockError("cancelled", "the call that this one was made for is not under way any more"),
      );
    }
    const call = new IncomingCall({
      replier,
      pair: recipient,
      channel: this,
      number,
      parent,
      deadlineAtMs: this.#deadlineAtMs(frame, parent),
    });
    this.#incoming.set(number, call);
    parent?.children.add(call);
    recipient.receiveCall(call, receivedBody(frame));
  }

  /** One that is over what was given ends a line. Over the relay it is passed over: that is other packs' way too. */
  #receiveReturn(frame: Frame, recipient: Recipient | undefined): void {
    const isServers = frameCall(frame) === 1;
    const isDue = recipient?.leases?.returned(frameAttachments(frame), isServers) ?? true;
    if (isDue || !this.#options.isLine) return;
    throw new AirlockError("protocol_error", `${recipient?.name} returned blocks that it was not given`);
  }

  #deadlineAtMs(frame: Frame, parent: OutgoingCall | undefined): number | undefined {
    const deadlineMs = frameDeadlineMs(frame);
    if (deadlineMs === undefined) return parent?.deadlineAtMs;
    const atMs = this.#options.clock.nowMs() + deadlineMs;
    return Math.min(atMs, parent?.deadlineAtMs ?? atMs);
  }

  /** Nothing comes any more. Calls of which nothing was sent are told `unsent`; the others wait for {@link end}. */
  beginEnd(unsent: Error): void {
    this.calls.beginEnd(unsent);
    this.#ended.resolve();
    for (const call of [...this.#incoming.values()]) call.cancel();
  }

  /** Fails the calls that wait for an answer. */
  end(reason: AirlockError): void {
    this.beginEnd(reason);
    this.calls.end(reason);
  }
}

/** Lets go of what a frame brings that nobody reads. */
function discard(frame: Frame, recipient: Recipient | undefined): void {
  if (frameHasReferences(frame) || frameAttachmentCount(frame) > 0) {
    discardBody(receivedBody(frame), recipient?.references, recipient?.leases);
  }
}

/** What a frame's fields are for a body. */
export function fieldsOf({ parts, hasReferences, placed }: OutgoingBody) {
  return { body: parts, hasReferences, hasArrays: placed !== undefined, attachments: placed?.attachments };
}

/** Sends what is said about one incoming call. */
class FrameReplier implements Replier {
  readonly #options: ChannelOptions;
  readonly #address: { readonly peer: number; readonly call: number };
  readonly #name: string;
  readonly #onAnswered: () => void;
  #lastProgress: Frame | undefined;

  constructor(options: ChannelOptions, peer: number, call: number, name: string, onAnswered: () => void) {
    this.#options = options;
    this.#address = { peer, call };
    this.#name = name;
    this.#onAnswered = onAnswered;
  }

  result(body: OutgoingBody): void {
    const { outlet, limits } = this.#options;
    const fields = { kind: FrameKind.result, ...this.#address, ...fieldsOf(body) };
    const frame = buildFrame(fields, limits.frameBytesMax);
    this.#onAnswered();
    outlet.send(frame, () => body.sent());
  }

  fail(thrown: unknown): void {
    this.#onAnswered();
    this.#options.outlet.send(buildFrame({ kind: FrameKind.error, ...this.#address, body: errorBody(thrown) }));
  }

  progress({ message = "", stage = "running", value, total }: ProgressReport): void {
    const said = { pack: this.#name, stage, message };
    const measured = { ...(value !== undefined && { value }), ...(total !== undefined && { total }) };
    const body = encode(progressToWire({ ...said, ...measured }));
    const { outlet } = this.#options;
    if (this.#lastProgress !== undefined) outlet.withdraw(this.#lastProgress);
    const frame = buildFrame({ kind: FrameKind.progress, ...this.#address, body });
    this.#lastProgress = frame;
    outlet.send(frame, () => {
      if (this.#lastProgress === frame) this.#lastProgress = undefined;
    });
  }
}
