/** Sessions and calls as the router makes them, without one. */
import { type Call, type OpenPack, Session } from "../../src/server/session.ts";
import type { Hello } from "../../src/transport/control.ts";
import { defaultLimits } from "../../src/transport/limits.ts";
import { FakeLink, hostHello } from "./peers.ts";

export function newSession(peer: number, hello: Hello = hostHello, pack?: OpenPack): Session {
  return new Session(peer, hello, new FakeLink(), defaultLimits, pack);
}

/** A call as the call table makes one, before anybody was given it. */
export function newCall(caller: Session, id: number, destination: number): Call {
  return {
    id,
    caller,
    callerCall: id,
    destination,
    pack: undefined,
    callee: undefined,
    heldBytes: 0,
    blocks: [],
    abandoned: false,
    deadlineMs: undefined,
    deadlineAtMs: undefined,
    callTimeout: undefined,
    timer: undefined,
  };
}
