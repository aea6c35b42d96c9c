/**
 * A host in TypeScript: connects to a server, opens packs and calls their nodes.
 *
 * Owns one connection and the calls under way on it. Every call ends exactly once: with its result, with an
 * {@link AirlockError}, or with the signal's reason when it is aborted.
 */

import { tmpdir } from "node:os";
import { resolve } from "node:path";
import type { Socket } from "bun";
import { defaultSocketPath } from "../transport/address.ts";
import { decode, encode, encodeParts } from "../transport/codec.ts";
import { Connection } from "../transport/connection.ts";
import {
  type Hello,
  openResultSchema,
  type PrepareResult,
  type Progress,
  prepareResultSchema,
  progressSchema,
  protocolVersions,
  type Status,
  serverPeer,
  statusSchema,
  validate,
  type Welcome,
  welcomeSchema,
} from "../transport/control.ts";
import { AirlockError, errorFromWire, toAirlockError } from "../transport/errors.ts";
import { buildFrame, type Frame, FrameKind, frameBody, frameCall, frameKind } from "../transport/frame.ts";
import { loadLibc } from "../transport/libc.ts";
import { defaultLimits, type Limits } from "../transport/limits.ts";
import { RawValue } from "../transport/values.ts";
import type { CallOptions } from "./call-options.ts";
import { Pack, type PackCaller } from "./pack.ts";

export interface ConnectOptions {
  /** Path of the server's socket; AIRLOCK_SOCKET or the user's own by default. */
  readonly socket?: string;
  /** What this host calls itself in listings. */
  readonly name?: string;
  /** A Python whose torch packs may share, where this host speaks for one. */
  readonly python?: { readonly executable: string; readonly version: string };
  readonly limits?: Partial<Limits>;
}

/** A call that was sent and not answered. */
interface PendingCall {
  /** Who answers it. */
  readonly peer: number;
  readonly resolve: (body: Uint8Array) => void;
  readonly reject: (reason: unknown) => void;
  readonly onProgress: ((progress: Progress) => void) | undefined;
}

/**
 * Connects to a running server.
 *
 * @throws AirlockError `disconnected` where there is none, `unauthorized` where it is another user's, or what the server
 * says where it lets nobody in.
 */
export async function connect(options: ConnectOptions = {}): Promise<Airlock> {
  const socketPath = options.socket ?? defaultSocketPath(process.env, process.getuid?.() ?? 0, tmpdir());
  return await Airlock.open(socketPath, options);
}

/** A connection to a server. */
export class Airlock implements PackCaller, AsyncDisposable {
  readonly #limits: Limits;
  readonly #pending = new Map<number, PendingCall>();
  readonly #welcomed = Promise.withResolvers<Welcome>();
  readonly #closed = Promise.withResolvers<void>();
  #connection: Connection | undefined;
  #lastCall = 0;
  /** Why the connection ended, once it has. */
  #ended: AirlockError | undefined;

  private constructor(limits: Limits) {
    this.#limits = limits;
  }

  /** Use {@link connect}. */
  static async open(socketPath: string, options: ConnectOptions): Promise<Airlock> {
    const airlock = new Airlock({ ...defaultLimits, ...options.limits });
    checkServer(await airlock.#connect(socketPath), socketPath);
    airlock.#sendHello(options);
    await airlock.#welcomed.promise;
    return airlock;
  }

  async #connect(socketPath: string): Promise<Socket<undefined>> {
    try {
      return await Bun.connect<undefined>({
        unix: socketPath,
        socket: {
          open: (socket) => {
            this.#connection = new Connection(socket, this.#limits, {
              onFrame: (frame) => this.#receive(frame),
              onBroken: (cause) => this.#connection?.abort(cause),
              onClose: (cause) => this.#end(cause),
            });
          },
          data: (_, chunk) => this.#connection?.handleData(chunk),
          drain: () => this.#connection?.handleDrain(),
          close: (_, error) => this.#connection?.handleClose(error),
          error: (_, error) => this.#connection?.handleClose(error),
        },
      });
    } catch (error) {
      throw new AirlockError(
        "disconnected",
        `no server answers at ${socketPath}`,
        { hint: "start one with `airlock serve`" },
        { cause: error },
      );
    }
  }

  #sendHello(options: ConnectOptions): void {
    const hello: Hello = {
      protocol: protocolVersions,
      features: [],
      role: "host",
      name: options.name ?? "bun",
      pid: process.pid,
      ...(options.python && { python: options.python }),
    };
    this.#connection?.send(buildFrame({ kind: FrameKind.hello, peer: serverPeer, call: 0, body: encode(hello) }));
  }

  /**
   * Opens the pack in `folder`: its manifest is checked, nothing is started.
   *
   * @throws AirlockError `manifest_invalid`.
   */
  async open(folder: string): Promise<Pack> {
    const result = validate(
      openResultSchema,
      await this.#callServer("open", { folder: resolve(folder) }),
      "answer to open",
    );
    return new Pack(this, result);
  }

  /** How the server is: its packs and their workers. */
  async status(): Promise<Status> {
    return validate(statusSchema, await this.#callServer("status", {}), "answer to status");
  }

  /** Used by {@link Pack.prepare}. */
  async prepare(pack: number, options: CallOptions): Promise<PrepareResult> {
    return validate(prepareResultSchema, await this.#callServer("prepare", { pack }, options), "answer to prepare");
  }

  /** Used by {@link Pack.close}. */
  async closePack(pack: number): Promise<void> {
    await this.#callServer("close", { pack });
  }

  async #callServer(method: string, parameters: object, options: CallOptions = {}): Promise<unknown> {
    return decode((await this.call(serverPeer, method, [], { ...parameters }, options)).bytes);
  }

  /**
   * Calls a method of a peer.
   *
   * @returns the result, still encoded.
   * @throws AirlockError as the server or the peer answers, `value_unsupported` where an argument cannot cross,
   * `limit_exceeded` where they are too large for a frame; or the signal's reason.
   */
  async call(
    peer: number,
    method: string,
    args: readonly unknown[],
    keywords: Record<string, unknown>,
    options: CallOptions,
  ): Promise<RawValue> {
    const { signal, deadlineMs, onProgress } = options;
    if (this.#ended !== undefined) throw this.#ended;
    if (signal?.aborted) throw signal.reason;
    const body = encodeParts([method, args, keywords]);
    const call = this.#freeCall();
    const { frameBytesMax, controlBytesMax } = this.#limits;
    const bytesMax = peer === serverPeer ? controlBytesMax : frameBytesMax;
    const frame = buildFrame({ kind: FrameKind.call, peer, call, deadlineMs, body }, bytesMax);
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    const onAbort = (): void => {
      this.#pending.delete(call);
      this.#connection?.send(buildFrame({ kind: FrameKind.cancel, peer, call }));
      reject(signal?.reason);
    };
    this.#pending.set(call, { peer, resolve, reject, onProgress });
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#connection?.send(frame);
    try {
      return new RawValue(await promise);
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  #freeCall(): number {
    do {
      this.#lastCall = (this.#lastCall + 1) >>> 0;
    } while (this.#lastCall === 0 || this.#pending.has(this.#lastCall));
    return this.#lastCall;
  }

  #receive(frame: Frame): void {
    const kind = frameKind(frame);
    const number = frameCall(frame);
    // The frame is a view into the socket's buffer; what a caller gets must stay.
    const body = frameBody(frame).slice();
    if (kind === FrameKind.welcome) return this.#receiveWelcome(body);
    if (kind === FrameKind.error && number === 0) {
      this.#connection?.abort(errorFromWire(decode(body)));
      return;
    }
    const call = this.#pending.get(number);
    // An answer may cross the cancel of its call.
    if (call === undefined) return;
    if (kind === FrameKind.progress) return this.#receiveProgress(number, call, body);
    this.#pending.delete(number);
    if (kind === FrameKind.result) call.resolve(body);
    else call.reject(errorOf(body));
  }

  /** Progress that makes no sense, or that its listener chokes on, ends that call and no other. */
  #receiveProgress(number: number, call: PendingCall, body: Uint8Array): void {
    try {
      call.onProgress?.(validate(progressSchema, decode(body), "progress"));
    } catch (error) {
      this.#pending.delete(number);
      this.#connection?.send(buildFrame({ kind: FrameKind.cancel, peer: call.peer, call: number }));
      call.reject(error);
    }
  }

  #receiveWelcome(body: Uint8Array): void {
    try {
      this.#welcomed.resolve(validate(welcomeSchema, decode(body), "welcome"));
    } catch (error) {
      this.#connection?.abort(toAirlockError(error));
    }
  }

  #end(cause: AirlockError | undefined): void {
    this.#ended = cause ?? new AirlockError("disconnected", "the server closed the connection");
    this.#welcomed.reject(this.#ended);
    // Whoever opened this airlock was told already, unless nobody waits any more.
    this.#welcomed.promise.catch(() => undefined);
    for (const call of this.#pending.values()) call.reject(this.#ended);
    this.#pending.clear();
    this.#closed.resolve();
  }

  /** Ends the connection; the server ends this host's workers. Calls under way are rejected. */
  async close(): Promise<void> {
    this.#connection?.end(new AirlockError("disconnected", "the connection was closed by this host"));
    await this.#closed.promise;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Makes sure that the server is this user's own, or root's: whoever else listens at this path would read all that is
 * sent there.
 */
function checkServer(socket: Socket<undefined>, socketPath: string): void {
  // Bun's typings leave the descriptor out; the kernel tells by it who listens.
  const { fd } = socket as unknown as { fd: number };
  const { uid } = loadLibc().peerCredentials(fd);
  if (uid === process.getuid?.() || uid === 0) return;
  socket.terminate();
  throw new AirlockError("unauthorized", `the server at ${socketPath} is user ${uid}'s, not yours`, {
    hint: "set AIRLOCK_SOCKET to a path that only you can write to",
  });
}

function errorOf(body: Uint8Array): AirlockError {
  try {
    return errorFromWire(decode(body));
  } catch (error) {
    return toAirlockError(error);
  }
}
