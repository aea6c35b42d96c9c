/**
 * One peer's stream socket as frames: what arrives is cut into frames, what is sent is queued while the socket is full.
 *
 * Invariant: frames leave in the order in which they were sent, and the queue never exceeds `outboxBytesMax`; a peer that
 * lets it fill up loses its connection. Knows nothing of what frames mean. Used by the server and the client alike.
 */
import type { Socket } from "bun";
import { AirlockError, toAirlockError } from "./errors.ts";
import type { Frame } from "./frame.ts";
import { FrameAssembler } from "./frame-assembler.ts";
import type { Limits } from "./limits.ts";
import { Outbox, type Receipt, sharedBytesMax } from "./outbox.ts";
import type { Flushable, WriteBatch } from "./write-batch.ts";

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

/** What a connection gathers of small frames before it writes them, though the batch is not over. */
const batchedBytesMax = 64 * 1024;

/** The end of a conversation that the router and the client send into. */
export interface FrameSink {
  /** Sends a frame, or drops it where the conversation is over; `receipt` hears when none of it is held any more. */
  send(frame: Frame, receipt?: Receipt): void;
  /** Takes no more frames, and closes once everything queued has left; `cause` is what `onClose` will be told. */
  end(cause?: AirlockError): void;
  /** Closes at once; what is queued is lost. */
  abort(cause?: AirlockError): void;
}

export class Connection implements FrameSink, Flushable {
  readonly #socket: Socket<unknown>;
  readonly #events: ConnectionEvents;
  readonly #assembler: FrameAssembler;
  readonly #limits: Limits;
  readonly #batch: WriteBatch | undefined;
  readonly #outbox = new Outbox();
  /** The socket took less than it was offered: it will say when it takes more. */
  #isFull = false;
  #isBatched = false;
  /** `ending` while what is queued leaves, `ended` until the socket says that it is closed. */
  #state: "open" | "ending" | "ended" | "closed" = "open";
  #cause: AirlockError | undefined;

  /** @param batch what is sent while a chunk is handled is written together, where all connections share one. */
  constructor(socket: Socket<unknown>, limits: Limits, events: ConnectionEvents, batch?: WriteBatch) {
    this.#socket = socket;
    this.#limits = limits;
    this.#events = events;
    this.#batch = batch;
    this.#assembler = new FrameAssembler(limits, (header) => this.#events.onHeader?.(header));
  }

  /** Bytes accepted by {@link send} that the kernel has not taken yet. */
  get outboxBytes(): number {
    return this.#outbox.bytes;
  }

  send(frame: Frame, receipt?: Receipt): void {
    if (this.#state !== "open") receipt?.passed(frame.byteLength);
    else if (this.#isFull) this.#queue(frame, receipt);
    else if (this.#batch?.isOpen && frame.byteLength <= sharedBytesMax) this.#queueInBatch(frame, receipt, this.#batch);
    else this.#write(frame, receipt);
  }

  /** Writes at once, after what is queued. */
  #write(frame: Frame, receipt: Receipt | undefined): void {
    this.flush();
    if (this.#state !== "open" || this.#isFull) return this.send(frame, receipt);
    const written = Math.max(this.#socket.write(frame), 0);
    if (written < frame.byteLength) {
      this.#isFull = true;
      this.#queue(frame.subarray(written), receipt);
    }
    if (written > 0) receipt?.passed(written);
  }

  #queueInBatch(frame: Frame, receipt: Receipt | undefined, batch: WriteBatch): void {
    this.#outbox.push(frame, receipt);
    // A chunk of tiny frames for one peer is larger than what is worth gathering.
    if (this.#outbox.bytes > batchedBytesMax) this.flush();
    else if (!this.#isBatched) {
      this.#isBatched = true;
      batch.add(this);
    }
  }

  #queue(bytes: Uint8Array, receipt: Receipt | undefined): void {
    this.#outbox.push(bytes, receipt);
    if (this.#outbox.bytes <= this.#limits.outboxBytesMax) return;
    const queued = `${this.#outbox.bytes} bytes wait for it, more than the ${this.#limits.outboxBytesMax} allowed`;
    this.abort(new AirlockError("limit_exceeded", `the peer does not read: ${queued}`));
  }

  /** Writes what is queued, as far as the socket takes it. */
  flush(): void {
    this.#isBatched = false;
    if (this.#isFull || this.#outbox.bytes === 0) return;
    this.#isFull = !this.#outbox.writeTo(this.#socket);
    this.#endIfFlushed();
  }

  #endIfFlushed(): void {
    if (this.#state !== "ending" || this.#outbox.bytes > 0) return;
    this.#state = "ended";
    this.#socket.end();
  }

  end(cause?: AirlockError): void {
    if (this.#state !== "open") return;
    this.#state = "ending";
    this.#cause = cause;
    this.flush();
    this.#endIfFlushed();
  }

  abort(cause: AirlockError | undefined = this.#cause): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#socket.terminate();
    this.#outbox.drop();
    this.#events.onClose(cause);
  }

  /** To be called with each chunk that the socket reads. */
  handleData(chunk: Uint8Array): void {
    // Nothing of a stream that is over, or was broken, is looked at or held back.
    if (this.#state !== "open") return;
    // Bun hands out a Buffer, whose slice would be a view where a copy is meant.
    const bytes = new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    this.#batch?.begin();
    try {
      this.#assembler.push(bytes, this.#onFrame);
    } catch (error) {
      if (this.#state === "open") this.#events.onBroken(toAirlockError(error));
    }
    this.#batch?.end();
  }

  readonly #onFrame = (frame: Frame): void => {
    if (this.#state === "open") this.#events.onFrame(frame);
  };

  /** To be called when the socket takes bytes again. */
  handleDrain(): void {
    this.#isFull = false;
    this.flush();
  }

  /** To be called when the socket is closed, by whichever side. */
  handleClose(error?: Error): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#outbox.drop();
    const failure = error && new AirlockError("disconnected", error.message, {}, { cause: error });
    this.#events.onClose(this.#cause ?? failure);
  }
}
