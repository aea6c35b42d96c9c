/**
 * A peer's descriptor lane: a pair of message sockets beside the peer's connection, and what each end of it does.
 *
 * Bun reads a connection with plain `recv`, which drops descriptors, so what is passed to a peer goes another way: first
 * the descriptor on the lane, then the frame that names it, on the connection or on a line. Whoever reads the frame finds
 * the descriptor there. One message is one descriptor, with what it is and the number that frames name it by; two, where
 * it is a line whose ends both named the feature `simplex`.
 */
import { AirlockError } from "./errors.ts";
import type { Libc, Received } from "./libc.ts";

export type LaneLibc = Pick<Libc, "socketPair" | "sendDescriptors" | "close">;
export type ReceivingLibc = Pick<Libc, "receive" | "close">;

/** What a descriptor is. */
export const Passed = { line: 1, segment: 2 } as const;
export type Passed = (typeof Passed)[keyof typeof Passed];

const messageBytes = 8;

/** The server's end. */
export class DescriptorLane {
  readonly #libc: LaneLibc;
  readonly #near: number;
  #isClosed = false;
  #isLeft = false;

  private constructor(libc: LaneLibc, near: number) {
    this.#libc = libc;
    this.#near = near;
  }

  /**
   * Makes a lane and gives its other end to a peer, beside the first bytes on its connection.
   *
   * @param connection descriptor of the connection, on which nothing may be queued.
   * @returns undefined where the connection did not take it; the bytes are then still to be sent. Where the peer is gone
   * already, a lane that nobody is at the end of.
   */
  static open(libc: LaneLibc, connection: number, bytes: Uint8Array): DescriptorLane | undefined {
    const [near, far] = libc.socketPair("messages");
    const sent = libc.sendDescriptors(connection, bytes, far);
    libc.close(far);
    if (sent !== "full") return new DescriptorLane(libc, near);
    libc.close(near);
    return undefined;
  }

  /**
   * Passes a copy of a descriptor, or of two that are one thing.
   *
   * @returns false where the peer has not taken those before, or is gone: no frame that names it may be sent then.
   */
  pass(what: Passed, number: number, ...descriptors: readonly number[]): boolean {
    if (this.#isClosed) return false;
    const bytes = new Uint8Array(messageBytes);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, what, true);
    view.setUint32(4, number, true);
    const sent = this.#libc.sendDescriptors(this.#near, bytes, ...descriptors);
    this.#isLeft ||= sent === "gone";
    return sent === "sent";
  }

  /** Whether a descriptor could not be passed because the peer has ended, which its connection has yet to tell. */
  get isLeft(): boolean {
    return this.#isLeft;
  }

  close(): void {
    if (!this.#isClosed) this.#libc.close(this.#near);
    this.#isClosed = true;
  }
}

/**
 * The peer's end. Descriptors are kept until somebody asks for them. Two lines may have one number, as each pack counts its
 * own: of those that were passed under one, the first is given out first, as the frames that name them come in that order.
 */
export class ReceivingLane {
  readonly #libc: ReceivingLibc;
  readonly #descriptor: number;
  readonly #passed = new Map<string, number[]>();
  #isClosed = false;

  /** @param descriptor the lane's end, which is the object's to close. */
  constructor(libc: ReceivingLibc, descriptor: number) {
    this.#libc = libc;
    this.#descriptor = descriptor;
  }

  /**
   * The descriptor that the server passed under this number, before any frame that names it; the caller's to close.
   *
   * @throws AirlockError `protocol_error` where it is not there, `limit_exceeded` where this process has no room for one.
   */
  take(what: Passed, number: number): number {
    this.#drain();
    const key = keyOf(what, number);
    const [descriptor, ...others] = this.#passed.get(key) ?? [];
    if (descriptor === undefined) {
      const name = what === Passed.line ? "line" : "segment";
      throw new AirlockError("protocol_error", `the server named ${name} ${number} and passed none`);
    }
    if (others.length === 0) this.#passed.delete(key);
    else this.#passed.set(key, others);
    return descriptor;
  }

  /** Closes what nobody will ask for any more, as far as it is there. */
  discard(what: Passed, number: number): void {
    this.#drain();
    const key = keyOf(what, number);
    for (const descriptor of this.#passed.get(key) ?? []) this.#libc.close(descriptor);
    this.#passed.delete(key);
  }

  /** Takes in what is there. */
  #drain(): void {
    const bytes = new Uint8Array(messageBytes);
    const view = new DataView(bytes.buffer);
    while (!this.#isClosed) {
      const received = this.#libc.receive(this.#descriptor, bytes);
      if (received !== undefined) checkRoom(received);
      if (received?.descriptor === undefined) return;
      this.#keep(received, view);
    }
  }

  #keep({ count, descriptor = -1 }: Received, view: DataView): void {
    if (count !== messageBytes) {
      this.#libc.close(descriptor);
      throw new AirlockError("protocol_error", `the server passed a descriptor with ${count} bytes`);
    }
    const key = `${view.getUint32(0, true)} ${view.getUint32(4, true)}`;
    this.#passed.set(key, [...(this.#passed.get(key) ?? []), descriptor]);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const descriptor of [...this.#passed.values()].flat()) this.#libc.close(descriptor);
    this.#passed.clear();
    this.#libc.close(this.#descriptor);
  }
}

function keyOf(what: Passed, number: number): string {
  return `${what} ${number}`;
}

/** Throws `limit_exceeded` where a descriptor was sent that this process had no room for. */
export function checkRoom(received: Received): void {
  if (!received.isTruncated) return;
  throw new AirlockError("limit_exceeded", "this process cannot open any more descriptors, and was to be given one", {
    hint: "raise the limit (ulimit -n), or find what leaves files open",
  });
}
