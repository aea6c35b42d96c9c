/**
 * The server as a caller: asks workers how they are, in its own name, through the same call table as everybody.
 *
 * A worker that does not answer is not punished for it: long native code that holds the interpreter's lock looks the same
 * as a hang. Whoever asks decides what silence means.
 */
import type { Clock } from "../transport/clock.ts";
import { decode, encodeParts } from "../transport/codec.ts";
import { type Hello, protocolVersions, serverPeer } from "../transport/control.ts";
import { AirlockError, errorFromWire, toAirlockError } from "../transport/errors.ts";
import { buildFrame, type Frame, FrameKind, frameBody, frameCall, frameKind } from "../transport/frame.ts";
import type { Limits } from "../transport/limits.ts";
import type { CallTable } from "./call-table.ts";
import { type Call, Session } from "./session.ts";

const serverHello: Hello = { protocol: protocolVersions, features: [], role: "host", name: "server", pid: process.pid };

interface Asked {
  readonly resolve: (value: unknown) => void;
  readonly reject: (reason: AirlockError) => void;
}

export class Questions {
  readonly #calls: CallTable;
  readonly #limits: Limits;
  readonly #clock: Clock;
  readonly #self: Session;
  readonly #asked = new Map<number, Asked>();
  #lastAsked = 0;

  constructor(calls: CallTable, limits: Limits, clock: Clock) {
    this.#calls = calls;
    this.#limits = limits;
    this.#clock = clock;
    const link = {
      send: (frame: Uint8Array) => this.#answered(frame as Frame),
      end: () => undefined,
      abort: () => undefined,
    };
    this.#self = new Session(serverPeer, serverHello, link, limits);
  }

  /** Questions whose answers are waited for. */
  get count(): number {
    return this.#asked.size;
  }

  /** Whether a call is one of the server's own. */
  isAsker(call: Call): boolean {
    return call.caller === this.#self;
  }

  /**
   * Calls a worker's method.
   *
   * @param withinMs how long the answer is waited for; for ever by default, or until the worker is gone.
   * @param keywords the method's arguments.
   * @throws AirlockError what the worker answers, `deadline_exceeded` where it doesn't in time, or why it is gone.
   */
  async ask(worker: Session, method: string, withinMs?: number, keywords: object = {}): Promise<unknown> {
    if (worker.isGone) throw new AirlockError("disconnected", `peer ${worker.peer} is gone`);
    const body = encodeParts([method, [], keywords]);
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#lastAsked += 1;
    const call = this.#calls.add(this.#self, this.#lastAsked, worker.peer);
    this.#asked.set(call.callerCall, { resolve, reject });
    this.#calls.give(call, worker);
    const timer = withinMs === undefined ? undefined : this.#clock.after(withinMs, () => this.#giveUp(call, withinMs));
    worker.link.send(buildFrame({ kind: FrameKind.call, peer: serverPeer, call: call.id, body }));
    try {
      return await promise;
    } finally {
      timer?.cancel();
    }
  }

  #giveUp(call: Call, withinMs: number): void {
    const asked = this.#asked.get(call.callerCall);
    this.#asked.delete(call.callerCall);
    this.#calls.abandon(call);
    asked?.reject(new AirlockError("deadline_exceeded", `the worker did not answer within ${withinMs / 1000} s`));
  }

  #answered(frame: Frame): void {
    const asked = this.#asked.get(frameCall(frame));
    this.#asked.delete(frameCall(frame));
    if (asked === undefined) return;
    try {
      const value = this.#read(frame);
      if (frameKind(frame) === FrameKind.error) asked.reject(errorFromWire(value));
      else asked.resolve(value);
    } catch (error) {
      asked.reject(toAirlockError(error, "value_invalid"));
    }
  }

  #read(frame: Frame): unknown {
    const body = frameBody(frame);
    const { controlBytesMax } = this.#limits;
    if (body.byteLength <= controlBytesMax) return decode(body);
    const message = `a worker answered the server with ${body.byteLength} bytes, of which ${controlBytesMax} are allowed`;
    throw new AirlockError("limit_exceeded", message);
  }
}
