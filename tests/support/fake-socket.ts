/**
 * A socket that takes as many bytes as it is told to, and records what it took: for {@link Connection} without a kernel.
 */
import type { Socket } from "bun";

export class FakeSocket {
  /** Bytes that the next writes may take, all in all. */
  room = Number.POSITIVE_INFINITY;
  readonly taken: Uint8Array[] = [];
  ended = 0;
  terminated = 0;

  write(bytes: Uint8Array): number {
    if (this.ended > 0 || this.terminated > 0) return -1;
    const count = Math.min(bytes.byteLength, this.room);
    this.room -= count;
    this.taken.push(bytes.slice(0, count));
    return count;
  }

  end(): void {
    this.ended += 1;
  }

  terminate(): void {
    this.terminated += 1;
  }

  get bytes(): Uint8Array {
    return new Uint8Array(Buffer.concat(this.taken));
  }

  /** The fake in the type that a connection takes; it has all that a connection uses. */
  get socket(): Socket<unknown> {
    return this as unknown as Socket<unknown>;
  }
}
