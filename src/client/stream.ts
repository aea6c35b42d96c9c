/**
 * Hands a connected socket to Bun's event loop: from there on Bun reads it, and closes it once.
 */
import type { Socket } from "bun";
import type { Connection } from "../transport/connection.ts";

/** What reads and writes a stream: its connection, and who waits for room in it. */
export interface StreamEnd {
  readonly connection: Connection;
  /** The connection may take frames again. */
  onDrain(): void;
}

/**
 * @param descriptor a connected stream socket; Bun's to close from now on.
 * @param attach makes the stream's end, before anything is read.
 */
export async function openStream<End extends StreamEnd>(
  descriptor: number,
  attach: (socket: Socket<unknown>) => End,
): Promise<End> {
  const opened = Promise.withResolvers<End>();
  let end: End | undefined;
  const handlers = {
    open(socket: Socket<unknown>): void {
      end = attach(socket);
      opened.resolve(end);
    },
    data: (_: unknown, chunk: Uint8Array) => end?.connection.handleData(chunk),
    drain(): void {
      end?.connection.handleDrain();
      end?.onDrain();
    },
    close: (_: unknown, error?: Error) => end?.connection.handleClose(error),
    error: (_: unknown, error: Error) => end?.connection.handleClose(error),
  };
  // Bun's typings know no descriptor here.
  await Bun.connect<unknown>({ fd: descriptor, socket: handlers } as unknown as Bun.UnixSocketOptions<unknown>);
  return await opened.promise;
}
