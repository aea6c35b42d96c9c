/**
 * A peer that said hello and was let in, the packs that hosts have open, and the calls between the two. Holds what the
 * router must know of them, and nothing that outlives the connection.
 */
import type { Timer } from "../transport/clock.ts";
import type { FrameSink } from "../transport/connection.ts";
import { type CallTimeout, features, type Hello } from "../transport/control.ts";
import type { DescriptorLane } from "../transport/descriptor-lane.ts";
import type { Attachment, Frame } from "../transport/frame.ts";
import type { Limits } from "../transport/limits.ts";
import { Flow } from "./flow.ts";

/** A call that the server relays, from its CALL frame until its callee has answered or is gone. */
export interface Call {
  /** The server's number for it, which its callee sees. */
  readonly id: number;
  readonly caller: Session;
  /** The caller's own number for it. */
  readonly callerCall: number;
  /** The peer number that the caller sent it to. */
  readonly destination: number;
  /** The pack whose host and worker it is between; missing where one of the two is the server, or no pack was found. */
  pack: OpenPack | undefined;
  /** Who answers it, once it was handed to somebody. */
  callee: Session | undefined;
  /** Bytes of its frame that the pack holds while its worker starts. */
  heldBytes: number;
  /** The blocks that its frame names, until somebody was given it. */
  blocks: readonly Attachment[];
  /** Nobody waits for the answer any more. */
  abandoned: boolean;
  /** The time that it was given, and when that is up on the server's clock; missing where it has no deadline. */
  deadlineMs: number | undefined;
  deadlineAtMs: number | undefined;
  /** The pack's limit, where that is what it was given. */
  callTimeout: CallTimeout | undefined;
  /** Until it is overdue; once it is abandoned, until its worker must have answered. */
  timer: Timer | undefined;
}

/** A pack that a host has open: what joins that host and a worker. */
export interface OpenPack {
  /** The number that the host sends to, and knows the worker by. */
  readonly peer: number;
  readonly name: string;
  readonly host: Session;
  /** Whom its worker's memory may be passed to: a number of its own, or 0 with the other packs of its host. */
  readonly audience: number;
  /** What the host may have under way to it; missing where the host doesn't keep to credit. */
  readonly flow: Flow | undefined;
  /** The time that every call to it has, from when its worker is there. */
  readonly callTimeout: CallTimeout | undefined;
  /** The worker that takes frames now, if one does. */
  readonly worker: Session | undefined;
  /** Takes a call, to be delivered or failed sooner or later. The frame is a view that is valid until this returns. */
  submit(call: Call, frame: Frame): void;
  /** Forgets a call that was submitted and not delivered. */
  withdraw(call: Call): void;
  /** Takes what a worker tells the server of its own accord: an event's body, a view that is valid until this returns. */
  told(worker: Session, body: Uint8Array): void;
  /** Ends the worker's process at once, if it is still this one; `verdict` says why, where others ask. */
  endWorker(worker: Session, verdict: string): void;
}

export class Session {
  /** The peer's number, which no later peer of this server gets. */
  readonly peer: number;
  readonly hello: Hello;
  readonly link: FrameSink;
  /** The pack that a worker runs. */
  readonly pack: OpenPack | undefined;
  /** What a worker may have under way to its host; missing where it doesn't keep to credit. */
  readonly flow: Flow | undefined;
  /** Where descriptors go to the peer, if it can take any. The door opens and closes it. */
  lane: DescriptorLane | undefined;
  /** Calls that this peer made and that have no answer yet, by the peer's own call number. */
  readonly made = new Map<number, Call>();
  /** Calls that it made and that are in the call table: those it waits for, and those it gave up and a callee still owes. */
  callsInTable = 0;
  /** Calls that this peer was given and has not answered. */
  callsOwed = 0;
  /** It is given no more calls: nobody would answer them. */
  isGone = false;

  constructor(peer: number, hello: Hello, link: FrameSink, limits: Limits, pack?: OpenPack) {
    this.peer = peer;
    this.hello = hello;
    this.link = link;
    this.pack = pack;
    this.flow = pack && this.flowTo(pack.host.peer, limits);
  }

  /** The number that the other one of a call knows it by. */
  get knownAs(): number {
    return this.pack?.peer ?? this.peer;
  }

  /** Whether it sends over the relay only as much as it was given credit for. */
  get keepsToCredit(): boolean {
    return this.hello.features.includes(features.credit);
  }

  /** Whether its lines may be two sockets each. */
  get takesSimplex(): boolean {
    return this.hello.features.includes(features.simplex);
  }

  /** Whether it was told that it may have segments. */
  get takesSegments(): boolean {
    return this.lane !== undefined && this.hello.features.includes(features.segments);
  }

  /** What it may have under way to another peer, where it keeps to credit. */
  flowTo(peer: number, limits: Limits): Flow | undefined {
    return this.keepsToCredit ? new Flow(this.link, peer, limits) : undefined;
  }
}

/** What `sender` may have under way to the other one of a pack, where it keeps to credit. */
export function flowFrom(sender: Session, pack: OpenPack | undefined): Flow | undefined {
  if (pack === undefined) return undefined;
  return sender.pack === undefined ? pack.flow : sender.flow;
}
