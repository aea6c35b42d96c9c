/**
 * The server as a caller: calls workers' methods in its own name, through the same call table as everybody.
 *
 * Only hears that an answer came, not what it says: it asks whether a worker is done with what came before.
 */
import { encode } from "../transport/codec.ts";
import { type Hello, protocolVersions, serverPeer } from "../transport/control.ts";
import { buildFrame, FrameKind, frameCall } from "../transport/frame.ts";
import type { Limits } from "../transport/limits.ts";
import type { CallTable } from "./call-table.ts";
import { Session } from "./session.ts";

const serverHello: Hello = { protocol: protocolVersions, features: [], role: "host", name: "server", pid: process.pid };

export class Questions {
  readonly #calls: CallTable;
  readonly #self: Session;
  readonly #asked = new Map<number, () => void>();
  #lastAsked = 0;

  constructor(calls: CallTable, limits: Limits) {
    this.#calls = calls;
    const link = {
      send: (frame: Uint8Array) => this.#answered(frameCall(frame)),
      end: () => undefined,
      abort: () => undefined,
    };
    this.#self = new Session(serverPeer, serverHello, link, limits);
  }

  /** Settles when the worker has answered, whatever, or is gone. */
  ask(worker: Session, method: string): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#lastAsked += 1;
    const call = this.#calls.add(this.#self, this.#lastAsked, worker.peer);
    this.#asked.set(call.callerCall, resolve);
    this.#calls.give(call, worker);
    const body = encode([method, [], {}]);
    worker.link.send(buildFrame({ kind: FrameKind.call, peer: serverPeer, call: call.id, body }));
    return promise;
  }

  #answered(call: number): void {
    this.#asked.get(call)?.();
    this.#asked.delete(call);
  }
}
