/** Receipts that a test can read. */
import type { Receipt } from "../../src/transport/outbox.ts";

/** Counts what has passed of one sender's bytes. */
export class Count implements Receipt {
  bytes = 0;

  passed(bytes: number): void {
    this.bytes += bytes;
  }
}
