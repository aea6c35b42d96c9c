/**
 * The arrays of one message, placed: what its table says, which blocks its frame names, and whose receipts these are.
 *
 * Invariant: the addressee has one receipt of each attachment, from when this is made, until it returns it, its process is
 * gone, or the message is undone.
 */
import type { ArrayEntry } from "../../transport/array-table.ts";
import { AirlockError } from "../../transport/errors.ts";
import type { Attachment } from "../../transport/frame.ts";
import type { Memory } from "./memory.ts";
import type { PairLeases } from "./pair-leases.ts";

export class Placed {
  readonly entries: readonly ArrayEntry[];
  readonly attachments: readonly Attachment[];
  readonly #memory: Memory;
  #pair: PairLeases;
  #hasLeft = false;
  #isCarried = false;

  constructor(memory: Memory, pair: PairLeases, attachments: readonly Attachment[], entries: readonly ArrayEntry[]) {
    this.entries = entries;
    this.attachments = attachments;
    this.#memory = memory;
    this.#pair = pair;
    for (const [index, block] of attachments.entries()) {
      if (memory.ledger.give(pair, block)) continue;
      for (const given of attachments.slice(0, index)) memory.ledger.takeBack(pair, given);
      throw new AirlockError("lease_gone", "an array is gone that was to be sent");
    }
  }

  /** Whose receipts these are. */
  get pair(): PairLeases {
    return this.#pair;
  }

  /** The message has left. */
  sent(): void {
    this.#hasLeft = true;
  }

  /** The message will not be sent; nothing happens where it has left. */
  undo(): void {
    if (!this.#hasLeft) this.#takeBack();
    this.#hasLeft = true;
  }

  /** The addressee's process is gone, and the message waits for its heir. */
  carry(heir: PairLeases): void {
    this.#pair = heir;
    this.#isCarried = true;
  }

  /** The message was the gone process's after all, and died with it. */
  died(): void {
    if (this.#isCarried) this.#takeBack();
    this.#isCarried = false;
  }

  #takeBack(): void {
    for (const block of this.attachments) this.#memory.ledger.takeBack(this.#pair, block);
  }
}
