/**
 * Credit on the relay: how much may be under way to each peer, and what waits because that is used up.
 *
 * Invariant: a frame leaves while any of its peer's window is left, and takes its whole length of it; so what one peer
 * does not read never stands before what others are sent. PROTOCOL.md, "Flow".
 */
import { type Frame, FrameKind, frameKind, framePeer } from "../transport/frame.ts";
import { type Outlet, takeOut, type Waiting } from "./outlet.ts";

/** Kinds that take credit. What cancels or releases does not: it may be what ends a jam. */
const creditedKinds: ReadonlySet<number> = new Set([
  FrameKind.call,
  FrameKind.result,
  FrameKind.error,
  FrameKind.progress,
  FrameKind.event,
]);

interface Window {
  /** Below zero where the last frame was longer than what was left. */
  leftBytes: number;
  readonly waiting: Waiting[];
}

export class CreditOutlet implements Outlet {
  readonly #outlet: Outlet;
  readonly #windowBytes: number;
  readonly #windows = new Map<number, Window>();

  /** @param windowBytes what may be under way to each peer. */
  constructor(outlet: Outlet, windowBytes: number) {
    this.#outlet = outlet;
    this.#windowBytes = windowBytes;
  }

  send(frame: Frame, onLeft?: () => void): void {
    const peer = framePeer(frame);
    if (peer === 0 || !creditedKinds.has(frameKind(frame))) return this.#outlet.send(frame, onLeft);
    const window = this.#windowOf(peer);
    window.waiting.push({ frame, onLeft });
    this.#flush(window);
  }

  withdraw(frame: Frame): boolean {
    const window = this.#windows.get(framePeer(frame));
    if (window !== undefined && takeOut(window.waiting, frame)) return true;
    if (!this.#outlet.withdraw(frame)) return false;
    if (window !== undefined) this.#give(window, frame.byteLength);
    return true;
  }

  /** The server has passed on so much of what was sent to the peer. */
  grant(peer: number, bytes: number): void {
    this.#give(this.#windowOf(peer), bytes);
  }

  #give(window: Window, bytes: number): void {
    window.leftBytes += bytes;
    this.#flush(window);
  }

  #flush(window: Window): void {
    while (window.leftBytes > 0) {
      const next = window.waiting.shift();
      if (next === undefined) return;
      window.leftBytes -= next.frame.byteLength;
      this.#outlet.send(next.frame, next.onLeft);
    }
  }

  #windowOf(peer: number): Window {
    const known = this.#windows.get(peer);
    if (known !== undefined) return known;
    const window: Window = { leftBytes: this.#windowBytes, waiting: [] };
    this.#windows.set(peer, window);
    return window;
  }
}
