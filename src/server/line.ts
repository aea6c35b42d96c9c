/**
 * A line: one socket pair between a host and the worker of one of its packs, which the server makes and steps aside.
 *
 * The same frames as on the relay, half the way. The server keeps a copy of the worker's end, and shuts it down when the
 * worker has ended: a child that the worker forked may hold another copy, and would hide the worker's death from the host.
 */
import { Passed } from "../transport/descriptor-lane.ts";
import { buildFrame, FrameKind } from "../transport/frame.ts";
import type { Libc } from "../transport/libc.ts";
import type { Session } from "./session.ts";

export type LineLibc = Pick<Libc, "socketPair" | "shutDown" | "close">;

export class Line {
  readonly #libc: LineLibc;
  readonly #kept: number;

  private constructor(libc: LineLibc, kept: number) {
    this.#libc = libc;
    this.#kept = kept;
  }

  /**
   * Joins a host and a worker, where both can take descriptors.
   *
   * @param pack the number that the host knows the pack by.
   * @param number the line's own, which the host names it by.
   * @returns undefined where they go on over the relay.
   */
  static join(libc: LineLibc, host: Session, worker: Session, pack: number, number: number): Line | undefined {
    if (host.lane === undefined || worker.lane === undefined) return undefined;
    const [hostEnd, workerEnd] = libc.socketPair();
    const line = new Line(libc, workerEnd);
    // The worker first: it should read the line by the time that the host calls over it.
    const isPassed = worker.lane.pass(Passed.line, number, workerEnd) && host.lane.pass(Passed.line, number, hostEnd);
    libc.close(hostEnd);
    if (!isPassed) {
      line.end();
      return undefined;
    }
    worker.link.send(buildFrame({ kind: FrameKind.line, peer: host.peer, call: number }));
    host.link.send(buildFrame({ kind: FrameKind.line, peer: pack, call: number }));
    return line;
  }

  /** Ends it for both sides; what the worker sent before is still read. To be called once. */
  end(): void {
    this.#libc.shutDown(this.#kept);
    this.#libc.close(this.#kept);
  }
}
