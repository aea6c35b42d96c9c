/**
 * What one peer may have under way to another over the relay, before the server has passed it on.
 *
 * So one that does not read can neither fill the server's memory nor hold up what is sent to others, and no socket is
 * paused on another peer's behalf. PROTOCOL.md, "Flow", is the contract; who breaks it loses its connection. Counts
 * bytes only, and holds none.
 */
import type { FrameSink } from "../transport/connection.ts";
import { AirlockError } from "../transport/errors.ts";
import { buildFrame, FrameKind } from "../transport/frame.ts";
import type { Limits } from "../transport/limits.ts";
import type { Receipt } from "../transport/outbox.ts";

/** The way from a sender that keeps to credit to one other peer. */
export class Flow {
  /** For calls, answers, progress and events. */
  readonly window: CreditWindow;
  /** For releases, which need no credit. */
  readonly reserve: ReleaseReserve;

  /** @param peer the other one's number, as the sender knows it. */
  constructor(sender: FrameSink, peer: number, limits: Limits) {
    this.window = new CreditWindow(sender, peer, limits.creditWindowBytes);
    this.reserve = new ReleaseReserve(peer, limits.releaseBytesMax);
  }
}

/**
 * Invariant: what was taken is given back once, when it has been passed on or dropped. Given back in quarters, so that
 * small calls cost no frames of their own, and so a sender that has nothing under way lacks a quarter at most.
 */
export class CreditWindow implements Receipt {
  readonly #sender: FrameSink;
  readonly #peer: number;
  readonly #size: number;
  #taken = 0;
  /** What of that was passed on, and not given back yet. */
  #passed = 0;

  constructor(sender: FrameSink, peer: number, size: number) {
    this.#sender = sender;
    this.#peer = peer;
    this.#size = size;
  }

  /**
   * Takes a frame's length of the window, however little of it is left.
   *
   * @throws AirlockError `limit_exceeded` where nothing is.
   */
  take(bytes: number): void {
    if (this.#taken >= this.#size) {
      const waiting = `${this.#taken} bytes are under way to peer ${this.#peer}, and the window is ${this.#size}`;
      throw new AirlockError("limit_exceeded", `a frame was sent without credit: ${waiting}`, {
        hint: "wait for CREDIT, or leave the feature out of the hello",
      });
    }
    this.#taken += bytes;
  }

  passed(bytes: number): void {
    this.#passed += bytes;
    if (this.#passed * 4 < this.#size) return;
    const credit = this.#passed;
    this.#taken -= credit;
    this.#passed = 0;
    this.#sender.send(creditFrame(this.#peer, credit));
  }
}

/** Bounds releases by what the server holds of them: a release may be what ends a jam, so it waits for no credit. */
export class ReleaseReserve implements Receipt {
  readonly #peer: number;
  readonly #bytesMax: number;
  #held = 0;

  constructor(peer: number, bytesMax: number) {
    this.#peer = peer;
    this.#bytesMax = bytesMax;
  }

  /**
   * Takes the length of a release.
   *
   * @throws AirlockError `limit_exceeded` where the reserve is full.
   */
  take(bytes: number): void {
    if (this.#held >= this.#bytesMax) {
      const waiting = `${this.#held} bytes of releases wait for peer ${this.#peer}`;
      throw new AirlockError("limit_exceeded", `${waiting}, more than the ${this.#bytesMax} allowed`, {
        hint: "release many references by one frame",
      });
    }
    this.#held += bytes;
  }

  passed(bytes: number): void {
    this.#held -= bytes;
  }
}

/** Gives `bytes` of the window to `peer` back. */
export function creditFrame(peer: number, bytes: number): Uint8Array {
  return buildFrame({ kind: FrameKind.credit, peer, call: bytes });
}
