/**
 * A server whose every frame the test decides: a real Unix socket in a temporary folder, and nothing behind it.
 */
import type { Socket, UnixSocketListener } from "bun";
import { encode } from "../../src/transport/codec.ts";
import { Connection } from "../../src/transport/connection.ts";
import type { Welcome } from "../../src/transport/control.ts";
import { buildFrame, type FrameFields, FrameKind } from "../../src/transport/frame.ts";
import { defaultLimits } from "../../src/transport/limits.ts";
import { read, type Sent } from "./peers.ts";

export const welcome: Welcome = { protocol: 1, features: [], peer: 7, server: { version: "0", pid: 1 } };

export class ScriptedServer implements Disposable {
  readonly path: string;
  /** What arrived and was not taken yet. */
  readonly #arrived: Sent[] = [];
  #waiting: (() => void) | undefined;
  readonly #listener: UnixSocketListener<undefined>;
  #connection: Connection | undefined;
  #socket: Socket<undefined> | undefined;
  /** Whether each hello is answered with a welcome. */
  welcoming = true;
  readonly #closed = Promise.withResolvers<void>();

  constructor(path: string) {
    this.path = path;
    this.#listener = Bun.listen<undefined>({
      unix: path,
      socket: {
        open: (socket) => this.#open(socket),
        data: (_, chunk) => this.#connection?.handleData(chunk),
        drain: () => this.#connection?.handleDrain(),
        close: () => this.#connection?.handleClose(),
      },
    });
  }

  #open(socket: Socket<undefined>): void {
    this.#socket = socket;
    this.#connection = new Connection(socket as Socket<unknown>, defaultLimits, {
      onFrame: (frame) => {
        const sent = read(frame);
        if (sent.kind === "hello" && this.welcoming) this.send("welcome", { body: encode(welcome) });
        this.#arrived.push(sent);
        this.#waiting?.();
      },
      onBroken: (cause) => this.#connection?.abort(cause),
      onClose: () => this.#closed.resolve(),
    });
  }

  /** Settles when the client's connection has ended. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** The next frame that the client sends. */
  async next(): Promise<Sent> {
    for (;;) {
      const sent = this.#arrived.shift();
      if (sent !== undefined) return sent;
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
  }

  send(kind: keyof typeof FrameKind, fields: Partial<FrameFields> = {}): void {
    this.#connection?.send(buildFrame({ peer: 0, call: 0, ...fields, kind: FrameKind[kind] }));
  }

  /** Writes bytes that need be no frame. */
  write(bytes: Uint8Array): void {
    this.#socket?.write(bytes);
  }

  /** Closes the client's connection. */
  hangUp(): void {
    this.#connection?.end();
  }

  [Symbol.dispose](): void {
    this.#connection?.abort();
    this.#listener.stop(true);
  }
}
