/**
 * Segments of others that this process was passed: their descriptors, and who was the first to name each, its owner.
 *
 * A descriptor is kept as long as its owner lives, and after that as long as anything of the segment is used here.
 */

import { Passed, type ReceivingLane } from "../../transport/descriptor-lane.ts";
import { AirlockError } from "../../transport/errors.ts";
import type { Attachment } from "../../transport/frame.ts";
import type { Libc } from "../../transport/libc.ts";
import { pageBytes } from "../../transport/segment-file.ts";

export interface ReceivedSegment<Peer> {
  readonly descriptor: number;
  readonly bytes: number;
  /** Undefined once its process is gone. */
  owner: Peer | undefined;
  /** Whom its blocks may be passed on to. */
  readonly audience: number | undefined;
}

export interface ReceivedSegmentsOptions {
  readonly libc: Pick<Libc, "close" | "sizeOf">;
  readonly lane: Pick<ReceivingLane, "take" | "discard">;
}

export class ReceivedSegments<Peer extends object> {
  readonly #options: ReceivedSegmentsOptions;
  readonly #segments = new Map<number, ReceivedSegment<Peer>>();

  constructor(options: ReceivedSegmentsOptions) {
    this.#options = options;
  }

  find(number: number): ReceivedSegment<Peer> | undefined {
    return this.#segments.get(number);
  }

  /**
   * The segment of which a peer's message names a block.
   *
   * @throws AirlockError `protocol_error` where the server passed no such segment, `limit_exceeded` where this process has
   * no room for its descriptor.
   */
  named(number: number, peer: Peer, audience: number | undefined): ReceivedSegment<Peer> {
    const known = this.#segments.get(number);
    if (known !== undefined) return known;
    const { libc, lane } = this.#options;
    const descriptor = lane.take(Passed.segment, number);
    const segment = { descriptor, bytes: libc.sizeOf(descriptor), owner: peer, audience };
    this.#segments.set(number, segment);
    return segment;
  }

  /** A peer's process is gone: the numbers of the segments that were its. */
  orphaned(peer: Peer): number[] {
    const own = [...this.#segments].filter(([, segment]) => segment.owner === peer);
    for (const [, segment] of own) segment.owner = undefined;
    return own.map(([number]) => number);
  }

  /** Closes a segment: nobody will name it any more. False where there is none. */
  close(number: number): boolean {
    const segment = this.#segments.get(number);
    if (segment === undefined) {
      this.#options.lane.discard(Passed.segment, number);
      return false;
    }
    this.#segments.delete(number);
    this.#options.libc.close(segment.descriptor);
    return true;
  }

  closeAll(): void {
    for (const { descriptor } of this.#segments.values()) this.#options.libc.close(descriptor);
    this.#segments.clear();
  }
}

/** @throws AirlockError `value_invalid` where a block is not inside its segment. */
export function checkInside({ segment, page, pages }: Attachment, bytes: number): void {
  if ((page + pages) * pageBytes <= bytes && page > 0) return;
  throw new AirlockError("value_invalid", `pages ${page} to ${page + pages} are not all of segment ${segment}'s`);
}
