/**
 * A peer's descriptor lane: a pair of message sockets beside the peer's connection, and what each end of it does.
 *
 * Bun reads a connection with plain `recv`, which drops descriptors, so what is passed to a peer goes another way: first
 * the descriptor on the lane, then the frame that names it on the connection. Whoever reads the frame finds the
 * descriptor there. One message is one descriptor, with the number that the frame names it by.
 */
import { AirlockError } from "./errors.ts";
import type { Libc, Received } from "./libc.ts";

export type LaneLibc = Pick<Libc, "socketPair" | "sendDescriptor" | "close">;
export type ReceivingLibc = Pick<Libc, "receive" | "close">;

/** The server's end. */
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

/** The peer's end. */
export class ReceivingLane {
  readonly #libc: ReceivingLibc;
  readonly #descriptor: number;
  #isClosed = false;

  /** @param descriptor the lane's end, which is the object's to close. */
  constructor(libc: ReceivingLibc, descriptor: number) {
    this.#libc = libc;
    this.#descriptor = descriptor;
  }

  /**
   * The descriptor that the server passed under this number, just before the frame that named it; the caller's to close.
   *
   * @throws AirlockError `protocol_error` where it is not there, `limit_exceeded` where this process has no room for it.
   */
  take(number: number): number {
    const bytes = new Uint8Array(4);
    const received = this.#libc.receive(this.#descriptor, bytes);
    if (received !== undefined) checkRoom(received);
    if (received?.descriptor === undefined) {
      throw new AirlockError("protocol_error", `the server named descriptor ${number} and passed none`);
    }
    if (received.count === 4 && new DataView(bytes.buffer).getUint32(0, true) === number) return received.descriptor;
    this.#libc.close(received.descriptor);
    throw new AirlockError("protocol_error", `the server named descriptor ${number} and passed another`);
  }

  close(): void {
    if (!this.#isClosed) this.#libc.close(this.#descriptor);
    this.#isClosed = true;
  }
}

/** Throws `limit_exceeded` where a descriptor was sent that this process had no room for. */
export function checkRoom(received: Received): void {
  if (!received.isTruncated) return;
  throw new AirlockError("limit_exceeded", "this process cannot open any more descriptors, and was to be given one", {
    hint: "raise the limit (ulimit -n), or find what leaves files open",
  });
}
