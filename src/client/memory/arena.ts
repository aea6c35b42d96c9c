/**
 * The segments that this process owns, and which block lies in which.
 *
 * Blocks of a kind lie together, so that a segment is soon empty again: small ones, middling ones, and each larger one in
 * a segment of its own. Memory is kept for what comes next, as its first touch costs many times a copy, up to a mark and
 * for a while; then a segment that is empty goes back. Nothing but whole segments can go back, as they are sealed.
 */

import type { Clock, Timer } from "../../transport/clock.ts";
import { AirlockError } from "../../transport/errors.ts";
import type { Attachment } from "../../transport/frame.ts";
import { pageBytes } from "../../transport/segment-file.ts";
import type { OwnSegment } from "./own-segment.ts";
import { inMiB, pagesFor, type SegmentMaker, type SegmentPlan } from "./segment-maker.ts";

const MiB = 1024 * 1024;
const smallBytesMax = MiB;
const smallSegmentBytes = 16 * MiB;
const middlingBytesMax = 32 * MiB;
const middlingSegmentBytes = 64 * MiB;
/** A segment for one block takes another block that leaves at most this part of it unused. */
const wasteMax = 0.25;

/** How long a segment is kept that is empty: others may need its memory, and can't ask for it. */
const idleMs = 30_000;

export interface ArenaOptions {
  readonly clock: Clock;
  readonly maker: Pick<SegmentMaker, "make">;
  /** What is kept though it is empty. */
  readonly keptBytesMax: number;
  /** A segment is no more: its mapping is gone, and nobody may be given blocks of it. */
  readonly onDropped: (segment: OwnSegment) => void;
  /**
   * Memory is short: asks those who hold blocks for what they can spare, and tries again at once, whenever something comes
   * back, and once more after a while.
   *
   * @returns undefined as soon as trying again did it; otherwise who holds how much, for people.
   */
  readonly reclaim: (tryAgain: () => Promise<boolean>) => Promise<string | undefined>;
}

type Size = "small" | "middling" | "large";

function sizeOf(bytes: number): Size {
  return bytes <= smallBytesMax ? "small" : bytes <= middlingBytesMax ? "middling" : "large";
}

function planFor(bytes: number, audience: number | undefined): SegmentPlan {
  const size = sizeOf(bytes);
  if (size === "small") return { bytes: smallSegmentBytes, audience, isOneBlock: false };
  if (size === "middling") return { bytes: middlingSegmentBytes, audience, isOneBlock: false };
  return { bytes: (1 + pagesFor(bytes)) * pageBytes, audience, isOneBlock: true };
}

interface Owned {
  readonly segment: OwnSegment;
  readonly size: Size;
  /** When the last block left it. */
  emptySinceMs: number;
}

export class Arena {
  readonly #options: ArenaOptions;
  readonly #segments = new Map<number, Owned>();
  #timer: Timer | undefined;
  /** Segments that are being made, by what they are for: who needs the same waits for the same. */
  readonly #making = new Map<string, Promise<void>>();

  constructor(options: ArenaOptions) {
    this.#options = options;
  }

  /** Bytes of all segments. */
  get bytes(): number {
    return [...this.#segments.values()].reduce((sum, { segment }) => sum + segment.bytes, 0);
  }

  find(number: number): OwnSegment | undefined {
    return this.#segments.get(number)?.segment;
  }

  /** A block of what there is; undefined where a segment would have to be made. */
  allocate(bytes: number, audience: number | undefined): Attachment | undefined {
    const size = sizeOf(bytes);
    const pages = pagesFor(bytes);
    for (const segment of this.#candidates(size, audience)) {
      const isWasteful = size === "large" && pages * pageBytes < segment.freeBytes * (1 - wasteMax);
      const block = isWasteful ? undefined : segment.allocate(pages);
      if (block !== undefined) return block;
    }
    return undefined;
  }

  /** Segments that may have room; the fullest first, so that others get empty. */
  #candidates(size: Size, audience: number | undefined): OwnSegment[] {
    return [...this.#segments.values()]
      .filter((each) => each.size === size && each.segment.audience === audience)
      .map(({ segment }) => segment)
      .sort((one, other) => one.freeBytes - other.freeBytes);
  }

  /** A block, for which a segment is made where it has to be. Throws AirlockError `limit_exceeded`, or as the server answers. */
  async allocateSoon(bytes: number, audience: number | undefined): Promise<Attachment> {
    for (;;) {
      const block = this.allocate(bytes, audience);
      if (block !== undefined) return block;
      const plan = planFor(bytes, audience);
      const key = `${plan.bytes} ${audience}`;
      const making = this.#making.get(key) ?? this.#makeRoom(bytes, plan).finally(() => this.#making.delete(key));
      this.#making.set(key, making);
      await making;
    }
  }

  /** Has room for a block of so many bytes: in a segment that is made, or in what came back meanwhile. */
  async #makeRoom(bytes: number, plan: SegmentPlan): Promise<void> {
    try {
      return await this.#make(bytes, plan);
    } catch (error) {
      if (!isShort(error)) throw error;
      const tryAgain = (): Promise<boolean> => this.#tryAgain(bytes, plan);
      // Before anybody is asked for anything.
      if (this.#dropEmpty(0) && (await tryAgain())) return;
      const holders = await this.#options.reclaim(tryAgain);
      if (holders !== undefined) throw this.#shortage(error, holders);
    }
  }

  /**
   * Whether there is room for a block now: in what came back, or in a segment that is made of the memory of empty ones, or of
   * others' that is free now.
   */
  async #tryAgain(bytes: number, plan: SegmentPlan): Promise<boolean> {
    if (this.#hasRoom(bytes, plan.audience)) return true;
    this.#dropEmpty(0);
    return await this.#make(bytes, plan).then(() => true, ignoreShortage);
  }

  async #make(bytes: number, plan: SegmentPlan): Promise<void> {
    const segment = await this.#options.maker.make(plan);
    this.#segments.set(segment.number, { segment, size: sizeOf(bytes), emptySinceMs: this.#options.clock.nowMs() });
  }

  #hasRoom(bytes: number, audience: number | undefined): boolean {
    const block = this.allocate(bytes, audience);
    if (block === undefined) return false;
    this.find(block.segment)?.free(block);
    return true;
  }

  #hasEmpty(): boolean {
    return [...this.#segments.values()].some(({ segment }) => segment.isEmpty);
  }

  #shortage(error: AirlockError, holders: string): AirlockError {
    const { message, details } = error;
    const used = `of ${inMiB(this.bytes)} that this process has for arrays, ${holders}`;
    return new AirlockError("limit_exceeded", `${message}; ${used}`, details, { cause: error });
  }

  /** A block is needed by nobody. */
  free(block: Attachment): void {
    const owned = this.#segments.get(block.segment);
    owned?.segment.free(block);
    if (owned === undefined || !owned.segment.isEmpty) return;
    owned.emptySinceMs = this.#options.clock.nowMs();
    this.#dropEmpty(this.#options.keptBytesMax);
    this.#dropOldLater();
  }

  /** Gives back what has been empty for long, and looks again later where there is more that is empty. */
  #dropOldLater(): void {
    this.#timer ??= this.#options.clock.after(idleMs, () => {
      this.#timer = undefined;
      const oldMs = this.#options.clock.nowMs() - idleMs;
      for (const { segment, emptySinceMs } of this.#segments.values()) {
        if (segment.isEmpty && emptySinceMs <= oldMs) this.#drop(segment);
      }
      if (this.#hasEmpty()) this.#dropOldLater();
    });
  }

  /** Gives segments back that are empty, the largest first, as long as there is more than `keptBytes`. */
  #dropEmpty(keptBytes: number): boolean {
    const empty = [...this.#segments.values()].map(({ segment }) => segment).filter(({ isEmpty }) => isEmpty);
    let total = this.bytes;
    let dropped = false;
    for (const segment of empty.sort((one, other) => other.bytes - one.bytes)) {
      if (total <= keptBytes) break;
      total -= segment.bytes;
      dropped = true;
      this.#drop(segment);
    }
    return dropped;
  }

  #drop(segment: OwnSegment): void {
    this.#segments.delete(segment.number);
    segment.unmap();
    this.#options.onDropped(segment);
  }

  /** The connection has ended: no block is given out any more, and nobody can be told. */
  close(): void {
    this.#timer?.cancel();
    for (const { segment } of this.#segments.values()) this.#drop(segment);
  }
}

function isShort(error: unknown): error is AirlockError {
  return error instanceof AirlockError && error.code === "limit_exceeded";
}

function ignoreShortage(error: unknown): false {
  if (isShort(error)) return false;
  throw error;
}
