/**
 * The segments that there are: memory that the server makes for one owner, and passes on to whom the owner names.
 *
 * Invariant: nobody is passed a segment who is not of its audience, and nobody but its owner before it is sealed. The
 * server keeps a descriptor of its own of each, maps none, and takes no memory for any: that is the owner's to do.
 */
import { Passed } from "../transport/descriptor-lane.ts";
import { AirlockError } from "../transport/errors.ts";
import type { Limits } from "../transport/limits.ts";
import type { SegmentMaker } from "../transport/segment-file.ts";
import type { OpenPack, Session } from "./session.ts";

/** A segment, as long as anybody may be passed it. */
export interface Segment {
  /** Never given to another one. */
  readonly number: number;
  readonly bytes: number;
  readonly descriptor: number;
  readonly owner: Session;
  /** Who may be passed it: this host, and those packs of its that have this audience. */
  readonly host: Session;
  readonly audience: number;
  /** The numbers of those that blocks of it may be sent to. */
  readonly sharedWith: Set<number>;
  /** Who was passed it, its owner aside, and whether they still have it: they may have closed their copy. */
  readonly holders: Map<Session, boolean>;
  isSealed: boolean;
}

/** What a peer owns. */
export interface Holdings {
  readonly segments: number;
  readonly bytes: number;
}

export interface SegmentsOptions {
  readonly maker: SegmentMaker;
  readonly limits: Pick<Limits, "segmentBytesMax" | "segmentsPerPeerMax">;
  /** @throws AirlockError `pack_not_open`. */
  packOf(host: Session, peer: number): OpenPack;
  close(descriptor: number): void;
  /** Tells a peer what it did not ask for. */
  notify(session: Session, name: string, value: unknown): void;
}

const nothing: Holdings = { segments: 0, bytes: 0 };

export class Segments {
  readonly #options: SegmentsOptions;
  readonly #all = new Map<number, Segment>();
  readonly #owned = new Map<Session, Holdings>();
  #lastNumber = 0;

  constructor(options: SegmentsOptions) {
    this.#options = options;
  }

  find(number: number): Segment | undefined {
    return this.#all.get(number);
  }

  /** Whether there is or was such a segment. */
  wasMade(number: number): boolean {
    return number > 0 && number <= this.#lastNumber;
  }

  ownedBy(session: Session): Holdings {
    return this.#owned.get(session) ?? nothing;
  }

  /**
   * Makes a segment and passes it to its owner.
   *
   * @param audience a host's choice; a worker's segments are for its own pack's.
   * @returns its number.
   * @throws AirlockError `limit_exceeded`, or `bad_request` for a peer that takes no segments or an audience that is none.
   */
  make(owner: Session, bytes: number, audience?: number): number {
    if (!owner.takesSegments) throw takesNone(owner);
    const made = this.#audienceOf(owner, audience);
    this.#checkRoom(owner, bytes);
    const descriptor = this.#newFile(bytes);
    if (owner.lane?.pass(Passed.segment, this.#lastNumber + 1, descriptor) !== true) {
      this.#options.close(descriptor);
      throw laneFull(owner);
    }
    this.#lastNumber += 1;
    const number = this.#lastNumber;
    const sharedWith = new Set([owner.knownAs]);
    const segment = { number, bytes, descriptor, owner, ...made, sharedWith, holders: new Map(), isSealed: false };
    this.#all.set(number, segment);
    this.#count(owner, 1, bytes);
    return number;
  }

  #audienceOf(owner: Session, audience: number | undefined): Pick<Segment, "host" | "audience"> {
    if (owner.pack !== undefined) {
      if (audience !== undefined) throw new AirlockError("bad_request", "a worker's segments are for its own audience");
      return { host: owner.pack.host, audience: owner.pack.audience };
    }
    if (audience === undefined || audience === 0) return { host: owner, audience: 0 };
    if (this.#options.packOf(owner, audience).audience === audience) return { host: owner, audience };
    throw new AirlockError("bad_request", `${audience} is no audience: this pack shares one with others, which is 0`);
  }

  #checkRoom(owner: Session, bytes: number): void {
    const { segmentBytesMax, segmentsPerPeerMax } = this.#options.limits;
    const owned = this.ownedBy(owner);
    const hint = "drop segments that are not needed any more, or raise the server's limits";
    if (owned.segments >= segmentsPerPeerMax) {
      const message = `peer ${owner.knownAs} owns ${owned.segments} segments, as many as are allowed`;
      throw new AirlockError("limit_exceeded", message, { hint });
    }
    if (owned.bytes + bytes <= segmentBytesMax) return;
    const asked = `peer ${owner.knownAs} asked for ${bytes} bytes and owns ${owned.bytes} already`;
    throw new AirlockError("limit_exceeded", `${asked}, of ${segmentBytesMax} allowed`, { hint });
  }

  #newFile(bytes: number): number {
    try {
      return this.#options.maker.make(bytes);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      const message = `the system makes no segment of ${bytes} bytes: ${reason}`;
      throw new AirlockError("limit_exceeded", message, {}, { cause: error });
    }
  }

  #count(owner: Session, segments: number, bytes: number): void {
    const owned = this.ownedBy(owner);
    this.#owned.set(owner, { segments: owned.segments + segments, bytes: owned.bytes + bytes });
  }

  /**
   * Fixes a segment's size, and from now on lets nobody write to it but through what its owner has mapped.
   *
   * @throws AirlockError `unauthorized`, or `bad_request` where it was sealed before, or can't be, and then it is gone.
   */
  seal(owner: Session, number: number): void {
    const segment = this.#heldBy(owner, number);
    if (segment.owner !== owner) {
      throw new AirlockError("unauthorized", `segment ${number} is not peer ${owner.knownAs}'s own to seal`);
    }
    if (segment.isSealed) throw new AirlockError("bad_request", `segment ${number} is sealed already`);
    try {
      this.#options.maker.seal(segment.descriptor, segment.bytes);
    } catch (error) {
      this.#remove(segment);
      const reason = error instanceof Error ? error.message : String(error);
      throw new AirlockError("bad_request", `segment ${number} could not be sealed: ${reason}`, {}, { cause: error });
    }
    segment.isSealed = true;
  }

  /**
   * Lets blocks of a segment be sent to a peer from now on, and passes it to that one if it is there.
   *
   * @param peer a worker's host, or one of a host's packs.
   * @throws AirlockError `unauthorized` where either of the two is none of the segment's audience, `bad_request` where the
   * segment is not sealed or the peer takes none, `limit_exceeded`, `pack_not_open`, `lease_gone`.
   */
  share(from: Session, number: number, peer: number): void {
    const segment = this.#heldBy(from, number);
    if (!segment.isSealed) throw new AirlockError("bad_request", `segment ${number} is not sealed yet`);
    const to = from.pack === undefined ? this.#packIn(segment, peer) : hostOf(from.pack, segment, peer);
    if (to !== undefined) {
      if (!to.takesSegments) throw takesNone(to);
      if (!this.pass(segment, to)) throw laneFull(to);
    }
    segment.sharedWith.add(peer);
  }

  /** The worker in one of the host's slots, if there is one now. */
  #packIn(segment: Segment, peer: number): Session | undefined {
    const pack = this.#options.packOf(segment.host, peer);
    if (pack.audience === segment.audience) return pack.worker;
    const whose = segment.audience === 0 ? "packs without private memory" : `peer ${segment.audience} alone`;
    const message = `segment ${segment.number} is for ${whose}, which pack ${pack.name} (peer ${peer}) is none of`;
    const hint = "send what such a pack is to have in segments of its own audience";
    throw new AirlockError("unauthorized", message, { pack: pack.name, hint });
  }

  /**
   * A segment that a peer owns, or was passed and has not closed.
   *
   * @throws AirlockError `unauthorized`, `lease_gone`.
   */
  #heldBy(session: Session, number: number): Segment {
    const segment = this.#all.get(number);
    if (segment !== undefined && has(segment, session)) return segment;
    if (segment === undefined && this.wasMade(number)) throw segmentGone(number);
    throw new AirlockError("unauthorized", `peer ${session.knownAs} has no segment ${number}`);
  }

  /**
   * Passes a segment to a peer that has not got it; returns false where it can't take it now. One that has ended, which is
   * noted only when its connection tells, lacks nothing: no frame that names it will be read.
   */
  pass(segment: Segment, to: Session): boolean {
    if (has(segment, to)) return true;
    const { number, descriptor, holders } = segment;
    if (!to.takesSegments || to.lane === undefined) return false;
    if (!to.lane.pass(Passed.segment, number, descriptor)) return to.lane.isLeft;
    holders.set(to, true);
    return true;
  }

  /**
   * Passes a worker what was shared with its place before it was there: over a line, messages come past the server.
   *
   * @returns false where it can't take all of that now: it is to get no line, as its host would name the rest there. On
   * the relay each segment is passed with the frame that names it.
   */
  passShared(worker: Session): boolean {
    const { pack } = worker;
    if (pack === undefined || !worker.takesSegments) return true;
    return [...this.#all.values()]
      .filter(({ host, audience, sharedWith }) => {
        return host === pack.host && audience === pack.audience && sharedWith.has(pack.peer);
      })
      .every((segment) => this.pass(segment, worker));
  }

  /** A peer has closed its copy; with the owner, or the host where the owner has ended, the segment goes for all. */
  drop(from: Session, number: number): void {
    const segment = this.#all.get(number);
    if (segment === undefined) return;
    if (segment.holders.has(from)) segment.holders.set(from, false);
    if (segment.owner === from || (segment.owner.isGone && segment.host === from)) this.#remove(segment);
  }

  /** A peer's session has ended. What others may still be passed of its segments stays for as long as its host keeps it. */
  left(session: Session): void {
    this.#owned.delete(session);
    for (const segment of [...this.#all.values()]) {
      segment.holders.delete(session);
      const isOrphan = segment.owner.isGone && segment.holders.get(segment.host) !== true;
      if (segment.host === session || isOrphan) this.#remove(segment);
    }
    if (session.pack !== undefined) this.#boundOrphans(session.pack.host);
  }

  /** A host that never says what it has no more use for doesn't have the server keep more than one peer may own. */
  #boundOrphans(host: Session): void {
    const orphans = [...this.#all.values()].filter((segment) => segment.host === host && segment.owner.isGone);
    const tooMany = orphans.length - this.#options.limits.segmentsPerPeerMax;
    for (const segment of orphans.slice(0, Math.max(0, tooMany))) this.#remove(segment);
  }

  #remove(segment: Segment): void {
    const { number, bytes, owner, descriptor, holders } = segment;
    this.#all.delete(number);
    if (!owner.isGone) this.#count(owner, -1, -bytes);
    this.#options.close(descriptor);
    for (const [session, isHeld] of holders) {
      if (isHeld && !session.isGone) this.#options.notify(session, "segment_gone", { segment: number });
    }
  }

  /** The server has ended. */
  close(): void {
    for (const { descriptor } of this.#all.values()) this.#options.close(descriptor);
    this.#all.clear();
  }
}

/** Whether a peer has this segment: it owns it, or was passed it and has not closed its copy. */
export function has(segment: Segment, session: Session): boolean {
  return segment.owner === session || segment.holders.get(session) === true;
}

/** The host of a worker that shares a segment with it. */
function hostOf(pack: OpenPack, segment: Segment, peer: number): Session {
  if (peer === pack.host.peer) return pack.host;
  const whose = `which is the audience of segment ${segment.number} as far as pack ${pack.name} goes`;
  const message = `its worker may share with its host (peer ${pack.host.peer}), ${whose}, and not with peer ${peer}`;
  throw new AirlockError("unauthorized", message, { pack: pack.name });
}

export function segmentGone(number: number): AirlockError {
  return new AirlockError("lease_gone", `segment ${number} is gone: its owner dropped it, or has ended`, {
    hint: "send the value again",
  });
}

export function takesNone(session: Session): AirlockError {
  return new AirlockError("bad_request", `peer ${session.knownAs} takes no segments`, {
    hint: "name the features line and segments in its hello",
  });
}

export function laneFull(session: Session): AirlockError {
  return new AirlockError("limit_exceeded", `peer ${session.knownAs} has not taken what it was passed before`, {
    hint: "take descriptors off the lane as they come, or raise the limit of open files (ulimit -n)",
  });
}
