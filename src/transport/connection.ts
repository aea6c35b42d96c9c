/**
 * One peer's stream socket as frames: what arrives is cut into frames, what is sent is queued while the socket is full.
 *
 * Invariant: frames leave in the order in which they were sent, and the queue never exceeds `outboxBytesMax`; a peer that
 * lets it fill up loses its connection. Knows nothing of what frames mean. Used by the server and the client alike.
 */
import type { Socket } from "bun";
import { AirlockError, toAirlockError } from "./errors.ts";
import { type Frame, FrameAssembler } from "./frame.ts";
import type { Limits } from "./limits.ts";

/** What happens on a connection. `onClose` comes exactly once, and nothing after it. */
export interface ConnectionEvents {
  /** A frame's header arrived, and was well-formed; throws to refuse the frame before any more of it is buffered. */
  onHeader?(header: Uint8Array): void;
  /** A frame arrived; the bytes are a view that is valid until this returns. */
  onFrame(frame: Frame): void;
  /** The peer sent what is no frame; nothing it sends from here on can be understood. */
  onBroken(cause: AirlockError): void;
  /** The connection ended; `cause` is missing where the peer simply closed it. */
  onClose(cause: AirlockError | undefined): void;
}

/** The end of a conversation that the router and the client send into. */
export interface FrameSink {
  send(frame: Frame): void;
  /** Takes no more frames, and closes once everything queued has left; `cause` is what `onClose` will be told. */
  end(cause?: AirlockError): void;
  /** Closes at once; what is queued is lost. */
  abort(cause?: AirlockError): void;
}

export class Connection implements FrameSink {
  readonly #socket: Socket<unknown>;
  readonly #events: ConnectionEvents;
  readonly #assembler: FrameAssembler;
  readonly #limits: Limits;
  #outbox: Uint8Array[] = [];
  #outboxBytes = 0;
  #ending = false;
  #cause: AirlockError | undefined;
  #closed = false;

  constructor(socket: Socket<unknown>, limits: Limits, events: ConnectionEvents) {
    this.#socket = socket;
    this.#limits = limits;
    this.#events = events;
    this.#assembler = new FrameAssembler(limits, (header) => this.#events.onHeader?.(header));
  }

  /** Bytes accepted by {@link send} that the kernel has not taken yet. */
  get outboxBytes(): number {
    return this.#outboxBytes;
  }

  send(frame: Frame): void {
    if (this.#closed || this.#ending) return;
    let rest = frame;
    if (this.#outbox.length === 0) {
      const written = this.#socket.write(frame);
      if (written >= frame.byteLength) return;
      rest = frame.subarray(Math.max(written, 0));
    }
    this.#outboxBytes += rest.byteLength;
    if (this.#outboxBytes > this.#limits.outboxBytesMax) {
      const queued = `${this.#outboxBytes} bytes wait for it, more than the ${this.#limits.outboxBytesMax} allowed`;
      this.abort(new AirlockError("limit_exceeded", `the peer does not read: ${queued}`));
      return;
    }
    // The frame may be a view into a buffer that its owner reuses.
    this.#outbox.push(rest.slice());
  }

  end(cause?: AirlockError): void {
    if (this.#closed || this.#ending) return;
    this.#ending = true;
    this.#cause = cause;
    if (this.#outbox.length === 0) this.#socket.end();
  }

  abort(cause: AirlockError | undefined = this.#cause): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#outbox = [];
    this.#outboxBytes = 0;
    this.#socket.terminate();
    this.#events.onClose(cause);
  }

  /** To be called with each chunk that the socket reads. */
  handleData(chunk: Uint8Array): void {
    // Nothing of a stream that is over, or was broken, is looked at or held back.
    if (this.#closed || this.#ending) return;
    // Bun hands out a Buffer, whose slice would be a view where a copy is meant.
    const bytes = new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    try {
      this.#assembler.push(bytes, (frame) => {
        if (!this.#closed && !this.#ending) this.#events.onFrame(frame);
      });
    } catch (error) {
      if (!this.#closed && !this.#ending) this.#events.onBroken(toAirlockError(error));
    }
  }

  /** To be called when the socket takes bytes again. */
  handleDrain(): void {
    while (this.#outbox.length > 0) {
      const head = this.#outbox[0] as Uint8Array;
      const written = Math.max(this.#socket.write(head), 0);
      this.#outboxBytes -= written;
      if (written < head.byteLength) {
        this.#outbox[0] = head.subarray(written);
        return;
      }
      this.#outbox.shift();
    }
    if (this.#ending) this.#socket.end();
  }

  /** To be called when the socket is closed, by whichever side. */
  handleClose(error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    const failure = error && new AirlockError("disconnected", error.message, {}, { cause: error });
    this.#events.onClose(this.#cause ?? failure);
  }
}
