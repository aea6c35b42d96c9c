/**
 * The memory that this process shares with its peers: blocks of its own, blocks of theirs, and who has what.
 *
 * Joins the parts, each of which knows one thing: the arena, the ledger, the segments that were received, the mappings.
 * One for each connection to a server; pairs have a {@link PairLeases} each.
 */

import type { Clock, Timer } from "../../transport/clock.ts";
import type { ReceivingLane } from "../../transport/descriptor-lane.ts";
import { AirlockError } from "../../transport/errors.ts";
import type { Attachment } from "../../transport/frame.ts";
import type { Libc } from "../../transport/libc.ts";
import { pageBytes } from "../../transport/segment-file.ts";
import { NdArray } from "../../transport/values.ts";
import { Arena } from "./arena.ts";
import { LeaseLedger } from "./lease-ledger.ts";
import { type BlockPlace, type MappedRun, Mappings } from "./mappings.ts";
import { machineBytes, type Room } from "./memory-room.ts";
import type { OwnSegment } from "./own-segment.ts";
import type { PairLeases } from "./pair-leases.ts";
import { checkInside, ReceivedSegments } from "./received-segments.ts";
import { copyInSteps, inMiB, type SegmentCalls, SegmentMaker } from "./segment-maker.ts";

const keptBytesMax = 4 * 1024 ** 3;
/** Of the machine's memory, what may be kept though it is empty. */
const keptPart = 1 / 8;
/** How long holders get to give back what they can spare. */
const reclaimMs = 1_000;
/** How often they are asked for it. */
const askMs = 200;

export interface MemoryOptions {
  readonly libc: SegmentCalls & Pick<Libc, "mapPrivate" | "readAt">;
  readonly lane: Pick<ReceivingLane, "take" | "discard">;
  readonly clock: Clock;
  /** Most attachments of a message. */
  readonly attachmentsMax: number;
  /** Calls a method of the server, on nobody's behalf. */
  callServer(method: string, parameters: object): Promise<unknown>;
  /** How much memory there is; what the system says by default. */
  readonly room?: () => Room;
  /** Finds garbage now, which holds blocks of others. */
  collectGarbage(): void;
}

export class Memory {
  readonly ledger: LeaseLedger<PairLeases>;
  readonly received: ReceivedSegments<PairLeases>;
  readonly arena: Arena;
  readonly options: MemoryOptions;
  /** Values that stay encoded, and the blocks that each uses until it is garbage. */
  readonly keptBlocks = new FinalizationRegistry<readonly Attachment[]>((blocks) => this.#unuse(blocks));
  readonly #mappings: Mappings;
  /** Told when a block of this process's own is free again. */
  readonly #onFreed = new Set<() => void>();
  #isClosed = false;

  constructor(options: MemoryOptions) {
    this.options = options;
    const { libc, callServer, clock, lane, room } = options;
    this.ledger = new LeaseLedger({
      freed: (block) => this.#freed(block),
      returned: (pair, block, receipts) => pair.owe(block, receipts),
      ended: ({ segment }) => this.#settleOrphan(segment),
    });
    this.received = new ReceivedSegments({ libc, lane });
    this.#mappings = new Mappings({
      calls: libc,
      onCollected: (blocks) => this.#unuse(blocks),
    });
    this.arena = new Arena({
      clock,
      maker: new SegmentMaker({ libc, lane, callServer, ...(room && { room }) }),
      keptBytesMax: Math.min(keptBytesMax, (machineBytes() ?? keptBytesMax / keptPart) * keptPart),
      onDropped: (segment) => this.#dropped(segment),
      reclaim: (tryAgain) => this.#reclaim(tryAgain),
    });
  }

  /** A pair's process is gone: its segments stay as long as anything of them is used. */
  leave(pair: PairLeases): void {
    for (const segment of this.received.orphaned(pair)) this.#settleOrphan(segment);
  }

  isOwn(segment: number): boolean {
    return this.arena.find(segment) !== undefined;
  }

  /** Whom a segment's blocks may be passed to: packs of this audience alone. */
  audienceOf(segment: number): { readonly audience: number | undefined } | undefined {
    return this.arena.find(segment) ?? this.received.find(segment);
  }

  /**
   * Maps blocks that lie one after the other; their views use them.
   *
   * @throws AirlockError `lease_gone` where their owner took one back, `value_invalid` where its segment has no such block.
   */
  map(blocks: readonly [Attachment, ...Attachment[]]): MappedRun {
    const [{ segment: number }] = blocks;
    const segment = this.arena.find(number) ?? this.received.find(number);
    if (segment === undefined) throw leaseGone();
    for (const block of blocks) {
      checkInside(block, segment.bytes);
      this.#checkGeneration(segment.descriptor, block);
    }
    const run = this.#mappings.map(segment.descriptor, blocks);
    for (const block of blocks) this.ledger.use(block);
    return run;
  }

  #checkGeneration(descriptor: number, { page, generation }: Attachment): void {
    const bytes = new Uint8Array(4);
    const count = this.options.libc.readAt(descriptor, bytes, 4 * page);
    if (count !== 4 || new DataView(bytes.buffer).getUint32(0, true) !== generation) throw leaseGone();
  }

  /** Where an array's elements lie in a block that is still as it came. */
  unwrittenPlace(data: Uint8Array): BlockPlace | undefined {
    return this.#mappings.unwrittenPlace(data);
  }

  /** A block for so many bytes, which its maker uses, of memory that is there; undefined where there is none. */
  allocate(bytes: number, audience: number | undefined): Attachment | undefined {
    const block = this.arena.allocate(bytes, audience);
    if (block !== undefined) this.ledger.own(block);
    return block;
  }

  /** The same, where memory may have to be made. Throws AirlockError `limit_exceeded`, or as the server answers. */
  async allocateSoon(bytes: number, audience: number | undefined): Promise<Attachment> {
    if (this.#isClosed) throw new AirlockError("disconnected", "the connection to the server has ended");
    const block = await this.arena.allocateSoon(bytes, audience);
    this.ledger.own(block);
    return block;
  }

  /** Writes into a block of this process's own that nobody was told of. */
  write(block: Attachment, offset: number, data: Uint8Array): void {
    this.arena.find(block.segment)?.write(block, offset, data);
  }

  /** A copy of an array in a block, which can be sent again and again without another copy. */
  async shared(array: NdArray, audience: number | undefined): Promise<NdArray> {
    const { data, kind, dtype, shape, order } = array;
    if (data.byteLength === 0 || this.unwrittenPlace(data) !== undefined) return array;
    const block = await this.allocateSoon(data.byteLength, audience);
    try {
      await copyInSteps(data, (offset, part) => this.write(block, offset, part));
      const { buffer } = this.map([block]);
      return new NdArray(kind, dtype, shape, new Uint8Array(buffer, 0, data.byteLength), order);
    } finally {
      this.ledger.unuse(block);
    }
  }

  #unuse(blocks: readonly Attachment[]): void {
    for (const block of blocks) this.ledger.unuse(block);
  }

  #freed(block: Attachment): void {
    if (this.#isClosed) return;
    this.arena.free(block);
    for (const tell of this.#onFreed) tell();
  }

  #dropped(segment: OwnSegment): void {
    this.options.libc.close(segment.descriptor);
    if (!this.#isClosed) this.#tellServer(segment.number);
  }

  /** Lets go of a segment whose owner is gone and of which nothing is used here any more. */
  #settleOrphan(number: number): void {
    const segment = this.received.find(number);
    if (segment === undefined || segment.owner !== undefined || this.ledger.knows(number)) return;
    this.received.close(number);
    if (!this.#isClosed) this.#tellServer(number);
  }

  /** Nobody waits for the answer, and where the connection ends instead, all is gone in any case. */
  #tellServer(segment: number): void {
    this.options.callServer("drop_segment", { segment }).catch(() => undefined);
  }

  /** The server tells that a segment is no more. What is mapped of it stays. */
  segmentGone(number: number): void {
    this.received.close(number);
  }

  /** Asks all holders for what they can spare, and tries again at once and whenever some has come back, but not for too long. */
  async #reclaim(tryAgain: () => Promise<boolean>): Promise<string | undefined> {
    this.options.collectGarbage();
    let isOver = false;
    let change = Promise.withResolvers<void>();
    const timer = this.options.clock.after(reclaimMs, () => {
      isOver = true;
      change.resolve();
    });
    // Asked again: whoever looked for garbage just before passes a request over.
    let again: Timer | undefined;
    const ask = (): void => {
      for (const [pair] of this.#held()) pair.askBack();
      again = this.options.clock.after(askMs, ask);
    };
    ask();
    const tell = (): void => change.resolve();
    this.#onFreed.add(tell);
    try {
      for (;;) {
        // Before the attempt: what comes back during it, or its end, is worth another.
        change = Promise.withResolvers();
        const isLast = isOver;
        if (await tryAgain()) return undefined;
        if (isLast) return this.#holders();
        await change.promise;
      }
    } finally {
      this.#onFreed.delete(tell);
      timer.cancel();
      again?.cancel();
    }
  }

  /** Who holds pages of this process's own, and how many. */
  #held(): [PairLeases, number][] {
    return [...this.ledger.heldPages()].filter(([, pages]) => pages > 0);
  }

  /** The same for people. */
  #holders(): string {
    const holders = this.#held().map(([pair, pages]) => `${pair.name} holds ${inMiB(pages * pageBytes)}`);
    return holders.length === 0 ? "nobody else holds any" : holders.join(", ");
  }

  /** The connection has ended. */
  close(): void {
    this.#isClosed = true;
    this.arena.close();
    this.received.closeAll();
    // Who waits for memory finds that there is no server any more.
    for (const tell of this.#onFreed) tell();
  }
}

function leaseGone(): AirlockError {
  return new AirlockError("lease_gone", "the tensor was taken back by its owner", {
    hint: "use an array before the call is over that it came with, or keep it reachable in the process that sent it",
  });
}
