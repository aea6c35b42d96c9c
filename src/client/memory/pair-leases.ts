/**
 * The leases between this process and one other: what arrives is counted, what is over goes back.
 *
 * Receipts go back with the next frame, or a moment later. Twin of the same on Python's side; PROTOCOL.md, "Leases".
 */

import { splitBody } from "../../transport/array-body.ts";
import type { Timer } from "../../transport/clock.ts";
import type { Attachment } from "../../transport/frame.ts";
import { pageBytes } from "../../transport/segment-file.ts";
import { ArrayPlan } from "./array-plan.ts";
import { HeldArrays } from "./held-arrays.ts";
import type { Memory } from "./memory.ts";
import type { Placed } from "./placed.ts";

/** How long receipts are gathered before they go back by themselves. */
const returnMs = 20;
/** How much of this process's time a peer may have it spend in looking for garbage. */
const collectShareMax = 0.25;

/** Sends the frames that are about leases. */
export interface LeaseSender {
  sendReturn(blocks: readonly Attachment[]): void;
  sendReclaim(): void;
}

export interface PairLeasesOptions extends LeaseSender {
  readonly memory: Memory;
  /** The number by which the server knows the other one. */
  readonly peer: number;
  /** For people. */
  readonly name: string;
  /** Whose memory the other one may be passed; undefined for a worker's host. */
  readonly audience: number | undefined;
}

/** A message's value, and the arrays that its indexes stand for. */
export interface ReceivedArrays {
  readonly value: Uint8Array;
  readonly arrays: HeldArrays;
}

export class PairLeases {
  readonly #options: PairLeasesOptions;
  /** Segments that the other one was passed, or is about to be. */
  #shared = new Map<number, Promise<void> | true>();
  #due: Attachment[] = [];
  #timer: Timer | undefined;
  #isEnded = false;
  /** The other one can't be passed segments. */
  #isRefused = false;
  #collectNotBeforeMs = Number.NEGATIVE_INFINITY;

  constructor(options: PairLeasesOptions) {
    this.#options = options;
  }

  get peer(): number {
    return this.#options.peer;
  }

  get name(): string {
    return this.#options.name;
  }

  get audience(): number | undefined {
    return this.#options.audience;
  }

  get isEnded(): boolean {
    return this.#isEnded;
  }

  /** For the arrays of one message; undefined where all must stand in the value. */
  plan(): ArrayPlan | undefined {
    return this.#isRefused || this.#isEnded ? undefined : new ArrayPlan(this.#options.memory, this);
  }

  /** Whether the other one was passed a segment. */
  isShared(segment: number): boolean {
    return this.#shared.get(segment) === true;
  }

  /** Has the other one be passed a segment, if it was not before. Throws as the server answers. */
  async share(segment: number): Promise<void> {
    const shared = this.#shared;
    const known = shared.get(segment);
    if (known === true) return;
    const sharing = known ?? this.#options.memory.options.callServer("share_segment", { segment, peer: this.peer });
    const settled = sharing.then(
      () => void shared.set(segment, true),
      (error: unknown) => {
        shared.delete(segment);
        throw error;
      },
    );
    shared.set(segment, settled);
    await settled;
  }

  /** The server says that the other one can't be passed segments: arrays stand in their messages from now on. */
  refuse(): void {
    this.#isRefused = true;
  }

  /**
   * Takes the blocks that a message names, and its table.
   *
   * @throws AirlockError `protocol_error` for a segment that was not passed, `value_invalid` for a table that is none: the
   * blocks are returned then.
   */
  receive(body: Uint8Array, blocks: readonly Attachment[]): ReceivedArrays {
    this.#take(blocks);
    try {
      const { table, value } = splitBody(
        body,
        blocks.map(({ pages }) => pages * pageBytes),
      );
      return { value, arrays: new HeldArrays(this.#options.memory, table, blocks) };
    } catch (error) {
      this.#letGo(blocks);
      throw error;
    }
  }

  /** Takes the blocks of a message that nobody reads, and returns them. */
  discard(blocks: readonly Attachment[]): void {
    this.#take(blocks);
    this.#letGo(blocks);
  }

  #take(blocks: readonly Attachment[]): void {
    const { memory, audience } = this.#options;
    for (const { segment } of blocks) if (!memory.isOwn(segment)) memory.received.named(segment, this, audience);
    for (const block of blocks) memory.ledger.receive(this, block, memory.isOwn(block.segment));
  }

  #letGo(blocks: readonly Attachment[]): void {
    for (const block of blocks) this.#options.memory.ledger.unuse(block);
  }

  /**
   * Takes a RETURN.
   *
   * @param isServers whether the server says it in the other one's place.
   * @returns false where more is returned than was given.
   */
  returned(blocks: readonly Attachment[], isServers: boolean): boolean {
    const { memory } = this.#options;
    const unknown = blocks.filter((block) => !memory.ledger.takeBack(this, block));
    return isServers || unknown.every(({ segment }) => memory.audienceOf(segment) === undefined);
  }

  /** Receipts are over: they go back with the next frame. */
  owe(block: Attachment, receipts: number): void {
    if (this.#isEnded) return;
    for (let receipt = 0; receipt < receipts; receipt++) this.#due.push(block);
    this.#timer ??= this.#options.memory.options.clock.after(returnMs, () => this.flush());
  }

  /** Sends back what is due. To be called before a frame is sent. */
  flush(): void {
    if (this.#timer === undefined) return;
    this.#timer.cancel();
    this.#timer = undefined;
    const due = this.#due;
    this.#due = [];
    const { attachmentsMax } = this.#options.memory.options;
    for (let at = 0; at < due.length; at += attachmentsMax) {
      this.#options.sendReturn(due.slice(at, at + attachmentsMax));
    }
  }

  /** Asks the other one to return what it can spare. */
  askBack(): void {
    if (!this.#isEnded) this.#options.sendReclaim();
  }

  /** Takes a RECLAIM: what is garbage here is found now, and goes back once that was told. */
  reclaim(): void {
    const { clock, collectGarbage } = this.#options.memory.options;
    const began = clock.nowMs();
    if (began >= this.#collectNotBeforeMs) {
      collectGarbage();
      const ended = clock.nowMs();
      this.#collectNotBeforeMs = ended + (ended - began) * (1 / collectShareMax - 1);
    }
    clock.after(0, () => this.flush());
  }

  /**
   * The other process is gone, and this pair goes on with the one that takes its place.
   *
   * @param waiting messages that were sent, and that the next one will get.
   */
  replaced(waiting: readonly Placed[]): void {
    this.#forget();
    // The server remembers what was shared, and for whom: the next one's pack may have another audience.
    this.#shared = new Map();
    this.#hand(waiting, this);
  }

  /**
   * The other process is gone.
   *
   * @param heir who gets the messages that were sent and wait.
   */
  end(waiting: readonly Placed[] = [], heir: PairLeases = this): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#forget();
    this.#hand(waiting, heir);
  }

  #hand(waiting: readonly Placed[], heir: PairLeases): void {
    const { memory } = this.#options;
    const kept = waiting.flatMap(({ attachments }) => attachments);
    for (const placed of waiting) placed.carry(heir);
    memory.ledger.ended(this, kept, heir);
    memory.leave(this);
  }

  #forget(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#due = [];
  }
}
