/**
 * What was sent on a connection and the kernel has not taken yet: bytes in their order, and who waits for them to leave.
 *
 * Owns copies, as frames are views into buffers that are reused. Small frames share blocks, so a queue of many costs
 * little more than their bytes. Writes into what it is given, and knows nothing of frames.
 */

/** Hears that bytes of its are no longer held: the kernel took them, or they were lost with their connection. */
export interface Receipt {
  passed(bytes: number): void;
}

/** What small frames are gathered in. */
const blockBytes = 16 * 1024;
/** Anything longer gets a block of its own: to share one would waste more than it saves. */
export const sharedBytesMax = blockBytes / 2;
/** Runs that are over and not yet let go of, which a queue that never empties may have. */
const forgottenRunsMax = 1024;

interface Block {
  readonly bytes: Uint8Array;
  start: number;
  end: number;
}

export class Outbox {
  readonly #blocks: Block[] = [];
  #bytes = 0;
  /** Whose the bytes are: runs of the same receipt, from the oldest byte to the newest. */
  readonly #receipts: (Receipt | undefined)[] = [];
  readonly #runBytes: number[] = [];
  #firstRun = 0;

  /** Bytes that are held. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Takes a copy of the bytes; `receipt` hears when they have left, in one part or several. */
  push(bytes: Uint8Array, receipt: Receipt | undefined): void {
    const { byteLength } = bytes;
    if (byteLength > sharedBytesMax) this.#blocks.push({ bytes: bytes.slice(), start: 0, end: byteLength });
    else {
      const block = this.#blockWithRoom(byteLength);
      block.bytes.set(bytes, block.end);
      block.end += byteLength;
    }
    this.#bytes += byteLength;
    const last = this.#receipts.length - 1;
    if (last >= 0 && this.#receipts[last] === receipt) this.#runBytes[last] = (this.#runBytes[last] ?? 0) + byteLength;
    else {
      this.#receipts.push(receipt);
      this.#runBytes.push(byteLength);
    }
  }

  #blockWithRoom(byteLength: number): Block {
    const last = this.#blocks[this.#blocks.length - 1];
    if (last !== undefined && last.end + byteLength <= last.bytes.byteLength) return last;
    const block = { bytes: new Uint8Array(blockBytes), start: 0, end: 0 };
    this.#blocks.push(block);
    return block;
  }

  /** Writes as much as the socket takes; returns whether nothing is left. */
  writeTo(socket: { write(bytes: Uint8Array): number }): boolean {
    while (this.#bytes > 0) {
      const block = this.#blocks[0] as Block;
      const offered = block.end - block.start;
      const written = Math.max(socket.write(block.bytes.subarray(block.start, block.end)), 0);
      block.start += written;
      this.#bytes -= written;
      if (written === offered) this.#retire(block);
      // Last: who hears of it may send more into this very outbox.
      this.#pass(written);
      if (written < offered) return false;
    }
    return true;
  }

  /** A block that is empty now: the last one is kept for what comes next, if it is one that small frames share. */
  #retire(block: Block): void {
    if (this.#blocks.length === 1 && block.bytes.byteLength === blockBytes) {
      block.start = 0;
      block.end = 0;
    } else this.#blocks.shift();
  }

  #pass(written: number): void {
    let left = written;
    while (left > 0) {
      const receipt = this.#receipts[this.#firstRun];
      const run = this.#runBytes[this.#firstRun] ?? 0;
      const part = Math.min(run, left);
      if (part === run) this.#firstRun += 1;
      else this.#runBytes[this.#firstRun] = run - part;
      left -= part;
      this.#forgetRuns();
      receipt?.passed(part);
    }
  }

  /** Lets go of runs that are over: all of them at the end, and before that now and then. */
  #forgetRuns(): void {
    const isEmpty = this.#firstRun === this.#receipts.length;
    if (!isEmpty && this.#firstRun < forgottenRunsMax) return;
    this.#receipts.splice(0, this.#firstRun);
    this.#runBytes.splice(0, this.#firstRun);
    this.#firstRun = 0;
  }

  /** Gives up what is held; whoever waited for it hears so. */
  drop(): void {
    const lost = this.#bytes;
    this.#blocks.length = 0;
    this.#bytes = 0;
    this.#pass(lost);
  }
}
