/**
 * What a host and a worker tell each other and nobody answers: events, what is released and returned, and that memory is
 * short. Passed on if there is somebody to take it.
 */
import { serverPeer } from "../transport/control.ts";
import { AirlockError } from "../transport/errors.ts";
import {
  type Attachment,
  type Frame,
  FrameKind,
  frameBody,
  frameCall,
  frameKind,
  framePeer,
  setFramePeer,
} from "../transport/frame.ts";
import { creditFrame, type Flow } from "./flow.ts";
import { noBlocks, type RelayedBlocks } from "./relayed-blocks.ts";
import { flowFrom, type OpenPack, type Session } from "./session.ts";

export interface NewsOptions {
  readonly blocks: RelayedBlocks;
  /** One of a host's packs. */
  findPack(host: Session, peer: number): OpenPack | undefined;
}

export class News {
  readonly #options: NewsOptions;

  constructor(options: NewsOptions) {
    this.#options = options;
  }

  /**
   * Takes a frame of such a kind from a peer; may rewrite its header.
   *
   * @throws AirlockError `protocol_error` where it is out of place, `limit_exceeded` where it was sent without credit.
   */
  receive(from: Session, frame: Frame): void {
    const isEvent = frameKind(frame) === FrameKind.event;
    const isForServer = isEvent && from.pack !== undefined && framePeer(frame) === serverPeer;
    if (isForServer && frameCall(frame) === 0) return this.#tellServer(from, frame);
    checkPlace(from, frame);
    const pack = from.pack ?? this.#options.findPack(from, framePeer(frame));
    if (pack === undefined) return this.#drop(from, frame);
    const receipt = receiptOf(frame, flowFrom(from, pack));
    receipt?.take(frame.byteLength);
    const blocks = this.#options.blocks.check(from, frame, framePeer(frame));
    const to = this.#addressee(from, pack, frame, blocks);
    if (to === undefined) {
      receipt?.passed(frame.byteLength);
      if (isEvent) this.#options.blocks.giveBack(from, framePeer(frame), blocks);
      return;
    }
    setFramePeer(frame, from.knownAs);
    to.link.send(frame, receipt);
  }

  #tellServer(from: Session, frame: Frame): void {
    if (this.#options.blocks.named(from, frame) !== noBlocks) {
      throw new AirlockError("protocol_error", "an event to the server has attachments");
    }
    from.pack?.told(from, frameBody(frame));
  }

  /** The pack may have been closed meanwhile. No account is kept of the credit of a frame to nobody. */
  #drop(from: Session, frame: Frame): void {
    if (frameKind(frame) !== FrameKind.event) return;
    if (from.keepsToCredit) from.link.send(creditFrame(framePeer(frame), frame.byteLength));
    this.#options.blocks.giveBack(from, framePeer(frame), this.#options.blocks.named(from, frame));
  }

  /** Who takes the frame, if anybody does. */
  #addressee(from: Session, pack: OpenPack, frame: Frame, blocks: readonly Attachment[]): Session | undefined {
    const to = from.pack === undefined ? pack.worker : pack.host;
    if (to === undefined) return undefined;
    // Who takes no segments doesn't know what this is about.
    if (isAboutMemory(frame)) return to.takesSegments ? to : undefined;
    return this.#options.blocks.pass(to, blocks) === undefined ? to : undefined;
  }
}

/** Releases need no credit, and neither do these: they may be what ends a jam. */
function receiptOf(frame: Frame, flow: Flow | undefined) {
  return frameKind(frame) === FrameKind.event ? flow?.window : flow?.reserve;
}

function isAboutMemory(frame: Frame): boolean {
  return frameKind(frame) === FrameKind.return || frameKind(frame) === FrameKind.reclaim;
}

function checkPlace(from: Session, frame: Frame): void {
  const [kind, peer, call] = [frameKind(frame), framePeer(frame), frameCall(frame)];
  const isOfTwo = from.pack === undefined ? peer !== serverPeer : peer === from.pack.host.peer;
  if (call !== 0 || !isOfTwo) {
    const whose = `a frame of kind ${kind} to peer ${peer} with call ${call}`;
    const message = `${whose} is out of place: it goes to a host's pack or a worker's host, with call 0`;
    throw new AirlockError("protocol_error", message);
  }
  if (isAboutMemory(frame) && !from.takesSegments) {
    throw new AirlockError("protocol_error", `frames of kind ${kind} were not negotiated on this connection`);
  }
}
