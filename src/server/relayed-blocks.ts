/**
 * Blocks of segments that relayed frames name: whether the sender may name them, that the addressee can look at them, and
 * who gets them back.
 *
 * Invariant: a frame is delivered only to who has all segments that it names; one that names any and is not delivered is
 * answered by a RETURN of them. What a block holds, and who holds leases of it, is the peers' business.
 */
import { AirlockError } from "../transport/errors.ts";
import {
  type Attachment,
  buildFrame,
  type Frame,
  FrameKind,
  frameAttachmentCount,
  frameAttachments,
  frameKind,
} from "../transport/frame.ts";
import { pageBytes } from "../transport/segment-file.ts";
import { has, laneFull, type Segments, segmentGone } from "./segments.ts";
import type { Session } from "./session.ts";

export const noBlocks: readonly Attachment[] = [];

export class RelayedBlocks {
  readonly #segments: Segments;

  constructor(segments: Segments) {
    this.#segments = segments;
  }

  /**
   * The blocks that a frame names, wherever it is to go.
   *
   * @throws AirlockError `protocol_error`.
   */
  named(from: Session, frame: Frame): readonly Attachment[] {
    if (frameAttachmentCount(frame) === 0) return noBlocks;
    if (!from.takesSegments) {
      throw new AirlockError("protocol_error", "attachments were not negotiated on this connection");
    }
    return frameAttachments(frame);
  }

  /**
   * The blocks that a frame names, which its sender may send to `to`; of segments that are gone, as far as is known.
   *
   * @param to the addressee's number, as its sender knows it.
   * @throws AirlockError `protocol_error`.
   */
  check(from: Session, frame: Frame, to: number): readonly Attachment[] {
    const blocks = this.named(from, frame);
    for (const block of blocks) {
      if (frameKind(frame) === FrameKind.return) this.#checkReturned(from, block);
      else this.#checkSent(from, block, to);
    }
    return blocks;
  }

  #checkSent(from: Session, block: Attachment, to: number): void {
    const segment = this.#segmentOf(block);
    // It may have gone while the frame was on its way, by its owner's doing: that is no fault of the sender's.
    if (segment === undefined) return;
    const { number, isSealed, sharedWith } = segment;
    if (!has(segment, from)) throw wrong(`names segment ${number}, which peer ${from.knownAs} was not passed`);
    if (!isSealed) throw wrong(`names segment ${number}, which is not sealed`);
    if (!sharedWith.has(to)) throw wrong(`names segment ${number}, which was not shared with peer ${to}`);
  }

  /** Whose the block was, the peers know; that its sender may have closed its copy of the segment is no reason to keep it. */
  #checkReturned(from: Session, block: Attachment): void {
    const segment = this.#segmentOf(block);
    if (segment === undefined || segment.owner === from || segment.holders.has(from)) return;
    throw wrong(`returns a block of segment ${segment.number}, which peer ${from.knownAs} was not passed`);
  }

  #segmentOf({ segment: number, page, pages }: Attachment) {
    const segment = this.#segments.find(number);
    if (segment === undefined) {
      if (this.#segments.wasMade(number)) return undefined;
      throw wrong(`names segment ${number}, which there is not`);
    }
    const all = segment.bytes / pageBytes;
    if (page + pages > all)
      throw wrong(`names pages ${page} to ${page + pages} of segment ${number}, which has ${all}`);
    return segment;
  }

  /** Sees to it that a peer has all segments of these blocks; returns why it can't have them. */
  pass(to: Session, blocks: readonly Attachment[]): AirlockError | undefined {
    for (const { segment: number } of blocks) {
      const segment = this.#segments.find(number);
      if (segment === undefined) return segmentGone(number);
      if (this.#segments.pass(segment, to)) continue;
      if (to.takesSegments) return laneFull(to);
      return new AirlockError("value_unsupported", `peer ${to.knownAs} takes no segments, and was sent a block of one`);
    }
    return undefined;
  }

  /** Tells a sender that a frame with these blocks, which it sent to `peer`, is not delivered. */
  giveBack(from: Session, peer: number, blocks: readonly Attachment[]): void {
    if (blocks.length === 0) return;
    from.link.send(buildFrame({ kind: FrameKind.return, peer, call: undelivered, attachments: blocks }));
  }
}

/** What a RETURN of the server's has in the place of a call. */
const undelivered = 1;

function wrong(what: string): AirlockError {
  return new AirlockError("protocol_error", `a frame ${what}`);
}
