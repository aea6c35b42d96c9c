/**
 * A peer that said hello and was let in, and the calls between peers. Holds what the router must know of them, and
 * nothing that outlives the connection.
 */
import type { Timer } from "../transport/clock.ts";
import type { FrameSink } from "../transport/connection.ts";
import type { Hello } from "../transport/control.ts";
import type { DescriptorLane } from "../transport/descriptor-lane.ts";
import type { Frame } from "../transport/frame.ts";

/** A call that the server relays, from its CALL frame until its callee has answered or is gone. */
export interface Call {
  /** The server's number for it, which its callee sees. */
  readonly id: number;
  readonly caller: Session;
  /** The caller's own number for it. */
  readonly callerCall: number;
  /** The peer number that the caller sent it to. */
  readonly destination: number;
  /** Who answers it, once it was handed to somebody. */
  callee: Session | undefined;
  /** Nobody waits for the answer any more. */
  abandoned: boolean;
  /** The time that it was given, and when that is up on the server's clock; missing where it has no deadline. */
  readonly deadlineMs: number | undefined;
  readonly deadlineAtMs: number | undefined;
  timer: Timer | undefined;
}

/** Where a host's calls go by their peer number. */
export interface Destination {
  /** Takes a call, to be delivered or failed sooner or later. The frame is a view that is valid until this returns. */
  submit(call: Call, frame: Frame): void;
  /** Forgets a call that was submitted and not delivered. */
  withdraw(call: Call): void;
}

export class Session {
  /** The peer's number, which no later peer of this server gets. */
  readonly peer: number;
  readonly hello: Hello;
  readonly link: FrameSink;
  /** Where descriptors go to the peer, if it can take any. The door opens and closes it. */
  lane: DescriptorLane | undefined;
  /** Calls that this peer made and that have no answer yet, by the peer's own call number. */
  readonly made = new Map<number, Call>();
  /** Calls that it made and that are in the call table: those it waits for, and those it gave up and a worker still owes. */
  callsInTable = 0;
  /** Calls that this peer was given to answer, by the server's call number. */
  readonly given = new Map<number, Call>();

  constructor(peer: number, hello: Hello, link: FrameSink) {
    this.peer = peer;
    this.hello = hello;
    this.link = link;
  }
}
