/**
 * From a socket's path to a welcome, on a bare descriptor: Bun's sockets would drop the descriptor lane that comes along.
 *
 * Nothing here blocks: the socket is looked at in turns of the event loop, on which the server itself may be running.
 * Owns the descriptor until the handshake has succeeded, and closes it where it fails.
 */
import { type Clock, systemClock } from "../transport/clock.ts";
import { decode } from "../transport/codec.ts";
import { validate, type Welcome, welcomeSchema } from "../transport/control.ts";
import { checkRoom, ReceivingLane } from "../transport/descriptor-lane.ts";
import { AirlockError, errorFromWire } from "../transport/errors.ts";
import {
  checkHeader,
  type Frame,
  FrameKind,
  frameBody,
  frameKind,
  frameLength,
  headerBytes,
} from "../transport/frame.ts";
import type { Libc } from "../transport/libc.ts";
import type { Limits } from "../transport/limits.ts";

/** How long a server may take to answer a hello. */
const welcomeMsMax = 30_000;
/** Turns of the event loop without a pause: a server that runs answers within a few. */
const turnsAtOnce = 64;
const pauseMsMax = 32;
const readBytes = 64 * 1024;

/** A connection that was let in. */
export interface Welcomed {
  readonly descriptor: number;
  readonly welcome: Welcome;
  readonly lane: ReceivingLane | undefined;
  /** What has come behind the welcome. */
  readonly rest: Uint8Array;
}

/**
 * Connects, makes sure whose server it is, says hello and waits for the welcome.
 *
 * @throws AirlockError `disconnected` where nobody listens or answers, `unauthorized` where the server is another user's,
 * or what the server says where it lets nobody in.
 */
export async function shakeHands(socketPath: string, hello: Frame, limits: Limits, libc: Libc): Promise<Welcomed> {
  const descriptor = libc.streamSocket();
  const handshake = new Handshake(socketPath, descriptor, limits, libc);
  try {
    await handshake.reach();
    checkServer(libc, descriptor, socketPath);
    await handshake.say(hello);
    return await handshake.hear();
  } catch (error) {
    handshake.abort();
    throw error;
  }
}

class Handshake {
  readonly #socketPath: string;
  readonly #descriptor: number;
  readonly #limits: Limits;
  readonly #libc: Libc;
  readonly #turns: Turns;
  #lane: ReceivingLane | undefined;

  constructor(socketPath: string, descriptor: number, limits: Limits, libc: Libc) {
    this.#socketPath = socketPath;
    this.#descriptor = descriptor;
    this.#limits = limits;
    this.#libc = libc;
    this.#turns = new Turns(systemClock, welcomeMsMax);
  }

  abort(): void {
    this.#lane?.close();
    this.#libc.close(this.#descriptor);
  }

  async reach(): Promise<void> {
    try {
      while (!this.#libc.connect(this.#descriptor, this.#socketPath)) await this.#nextTurn();
    } catch (error) {
      if (error instanceof AirlockError) throw error;
      const hint = "start one with `airlock serve`";
      throw new AirlockError("disconnected", `no server answers at ${this.#socketPath}`, { hint }, { cause: error });
    }
  }

  async say(hello: Frame): Promise<void> {
    let rest = hello;
    try {
      for (;;) {
        rest = rest.subarray(this.#libc.send(this.#descriptor, rest));
        if (rest.byteLength === 0) return;
        await this.#nextTurn();
      }
    } catch (error) {
      if (error instanceof AirlockError) throw error;
      // What the server said before it closed the connection can still be read.
    }
  }

  async hear(): Promise<Welcomed> {
    let heard = new Uint8Array(0);
    for (;;) {
      heard = new Uint8Array(Buffer.concat([heard, await this.#receive()]));
      if (heard.byteLength < headerBytes) continue;
      checkHeader(heard.subarray(0, headerBytes), this.#limits);
      const end = headerBytes + frameLength(heard);
      if (heard.byteLength < end) continue;
      const welcome = readWelcome(heard.subarray(0, end));
      return { descriptor: this.#descriptor, welcome, lane: this.#lane, rest: heard.subarray(end) };
    }
  }

  /** The next bytes, at least one; a lane that comes with them is kept. */
  async #receive(): Promise<Uint8Array> {
    const buffer = new Uint8Array(readBytes);
    for (;;) {
      const received = this.#read(buffer);
      if (received === undefined) {
        await this.#nextTurn();
        continue;
      }
      if (received.descriptor !== undefined) this.#lane = new ReceivingLane(this.#libc, received.descriptor);
      checkRoom(received);
      if (received.count === 0) throw new AirlockError("disconnected", "the server closed the connection");
      return buffer.subarray(0, received.count);
    }
  }

  #read(buffer: Uint8Array): ReturnType<Libc["receive"]> {
    try {
      return this.#libc.receive(this.#descriptor, buffer);
    } catch (error) {
      throw new AirlockError("disconnected", "the connection to the server broke", {}, { cause: error });
    }
  }

  async #nextTurn(): Promise<void> {
    if (await this.#turns.next()) return;
    const seconds = welcomeMsMax / 1000;
    throw new AirlockError("disconnected", `the server at ${this.#socketPath} did not answer within ${seconds} s`);
  }
}

/** Turns of the event loop: at first one after the other, then with longer and longer pauses. */
class Turns {
  readonly #clock: Clock;
  readonly #untilMs: number;
  #count = 0;

  constructor(clock: Clock, msMax: number) {
    this.#clock = clock;
    this.#untilMs = clock.nowMs() + msMax;
  }

  /** Settles with the next turn; false where the time is up. */
  async next(): Promise<boolean> {
    this.#count += 1;
    const { promise, resolve } = Promise.withResolvers<void>();
    if (this.#count <= turnsAtOnce) setImmediate(resolve);
    else this.#clock.after(Math.min(this.#count - turnsAtOnce, pauseMsMax), resolve);
    await promise;
    return this.#clock.nowMs() < this.#untilMs;
  }
}

/**
 * Makes sure that the server is this user's own, or root's: whoever else listens at this path would read all that is
 * sent there.
 */
function checkServer(libc: Libc, descriptor: number, socketPath: string): void {
  const { uid } = libc.peerCredentials(descriptor);
  if (uid === process.getuid?.() || uid === 0) return;
  throw new AirlockError("unauthorized", `the server at ${socketPath} is user ${uid}'s, not yours`, {
    hint: "set AIRLOCK_SOCKET to a path that only you can write to",
  });
}

function readWelcome(frame: Frame): Welcome {
  const kind = frameKind(frame);
  if (kind !== FrameKind.welcome && kind !== FrameKind.error) {
    throw new AirlockError("protocol_error", "the server's first frame is neither a welcome nor an error");
  }
  const body = decode(frameBody(frame));
  if (kind === FrameKind.error) throw errorFromWire(body);
  return validate(welcomeSchema, body, "welcome");
}
