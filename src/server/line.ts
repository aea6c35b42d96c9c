/**
 * A line: the sockets between a host and the worker of one of its packs, which the server makes and steps aside.
 *
 * The same frames as on the relay, half the way. One socket pair for each direction, where both take that: on a stream
 * socket the kernel wakes whoever waits to read it as soon as what they sent was read, too, so that each message costs
 * its sender a wake-up for nothing. Else one pair for both.
 *
 * The server keeps copies of the worker's ends, and shuts them down when the worker has ended: a child that the worker
 * forked may hold others, and would hide the worker's death from the host.
 */
import { Passed } from "../transport/descriptor-lane.ts";
import { buildFrame, FrameKind } from "../transport/frame.ts";
import type { Libc } from "../transport/libc.ts";
import type { Session } from "./session.ts";

export type LineLibc = Pick<Libc, "socketPair" | "shutDown" | "close">;

export class Line {
  readonly #libc: LineLibc;
  readonly #kept: readonly number[];

  private constructor(libc: LineLibc, kept: readonly number[]) {
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
    const ends = host.takesSimplex && worker.takesSimplex ? twoPairs(libc) : onePair(libc);
    const line = new Line(libc, ends.worker);
    // The worker first: it should read the line by the time that the host calls over it.
    const isPassed =
      worker.lane.pass(Passed.line, number, ...ends.worker) && host.lane.pass(Passed.line, number, ...ends.host);
    for (const end of ends.host) libc.close(end);
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
    for (const end of this.#kept) {
      this.#libc.shutDown(end);
      this.#libc.close(end);
    }
  }
}

/** What either side has: one socket for both directions, or the one that it reads and the one that it writes to. */
interface Ends {
  readonly host: readonly number[];
  readonly worker: readonly number[];
}

function onePair(libc: LineLibc): Ends {
  const [host, worker] = libc.socketPair();
  return { host: [host], worker: [worker] };
}

function twoPairs(libc: LineLibc): Ends {
  const [hostReads, workerWrites] = libc.socketPair();
  try {
    const [hostWrites, workerReads] = libc.socketPair();
    return { host: [hostReads, hostWrites], worker: [workerReads, workerWrites] };
  } catch (error) {
    libc.close(hostReads);
    libc.close(workerWrites);
    throw error;
  }
}
