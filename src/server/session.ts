/**
 * A peer that said hello and was let in. Holds what the router must know of it, and nothing that outlives it.
 */

import type { FrameSink } from "../transport/connection.ts";
import type { Hello } from "../transport/control.ts";
import type { Call } from "./call-table.ts";
import type { Pack } from "./pack.ts";

export class Session {
  /** The peer's number, which no later peer of this server gets. */
  readonly peer: number;
  readonly hello: Hello;
  readonly link: FrameSink;
  /** Calls that this peer made and that have no answer yet, by the peer's own call number. */
  readonly made = new Map<number, Call>();
  /** Calls that this peer was given to answer, by the server's call number. */
  readonly given = new Map<number, Call>();
  /** For a host: the packs that it opened, by peer number. */
  readonly packs = new Map<number, Pack>();
  /** For a worker: the pack that it runs. */
  readonly runs: Pack | undefined;

  constructor(peer: number, hello: Hello, link: FrameSink, runs: Pack | undefined) {
    this.peer = peer;
    this.hello = hello;
    this.link = link;
    this.runs = runs;
  }
}
