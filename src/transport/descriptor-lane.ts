/**
 * A peer's descriptor lane, the server's end: a pair of message sockets beside the peer's connection.
 *
 * Bun reads a connection with plain `recv`, which drops descriptors, so what is passed to a peer goes another way: first
 * the descriptor on the lane, then the frame that names it on the connection. Whoever reads the frame finds the
 * descriptor there. One message is one descriptor, with the number that the frame names it by.
 */
import type { Libc } from "./libc.ts";

export type LaneLibc = Pick<Libc, "socketPair" | "sendDescriptor" | "close">;

export class DescriptorLane {
  readonly #libc: LaneLibc;
  readonly #near: number;
  #isClosed = false;

  private constructor(libc: LaneLibc, near: number) {
    this.#libc = libc;
    this.#near = near;
  }

  /**
   * Makes a lane and gives its other end to a peer, beside the first bytes on its connection.
   *
   * @param connection descriptor of the connection, on which nothing may be queued.
   * @returns undefined where the connection did not take it; the bytes are then still to be sent.
   */
  static open(libc: LaneLibc, connection: number, bytes: Uint8Array): DescriptorLane | undefined {
    const [near, far] = libc.socketPair("messages");
    const isSent = libc.sendDescriptor(connection, bytes, far);
    libc.close(far);
    if (isSent) return new DescriptorLane(libc, near);
    libc.close(near);
    return undefined;
  }

  /**
   * Passes a copy of a descriptor.
   *
   * @returns false where the peer has not taken those before, or is gone: the frame must not be sent then.
   */
  pass(number: number, descriptor: number): boolean {
    if (this.#isClosed) return false;
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, number, true);
    return this.#libc.sendDescriptor(this.#near, bytes, descriptor);
  }

  close(): void {
    if (!this.#isClosed) this.#libc.close(this.#near);
    this.#isClosed = true;
  }
}
