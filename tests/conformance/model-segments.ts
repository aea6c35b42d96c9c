/**
 * The server's part in segments, for a host and a worker that live in this process: real memory, and lanes of which the
 * worker's is a table. Nothing of the server's own code.
 */
import { closeSync, openSync } from "node:fs";
import { Passed } from "../../src/transport/descriptor-lane.ts";
import { AirlockError } from "../../src/transport/errors.ts";
import { loadLibc, Seal } from "../../src/transport/libc.ts";
import { pageBytes } from "../../src/transport/segment-file.ts";

export type Side = "host" | "worker";

/** What a worker's memory takes segments from. */
export class TableLane {
  readonly #passed = new Map<number, number>();

  pass(number: number, descriptor: number): void {
    // A copy, as the kernel makes of what is passed.
    this.#passed.set(number, openSync(`/proc/self/fd/${descriptor}`, "r+"));
  }

  take(what: Passed, number: number): number {
    const descriptor = this.#passed.get(number);
    this.#passed.delete(number);
    if (what === Passed.segment && descriptor !== undefined) return descriptor;
    throw new AirlockError("protocol_error", `no segment ${number} was passed`);
  }

  discard(_: Passed, number: number): void {
    const descriptor = this.#passed.get(number);
    this.#passed.delete(number);
    if (descriptor !== undefined) closeSync(descriptor);
  }

  get size(): number {
    return this.#passed.size;
  }

  /** Its process is gone. */
  close(): void {
    for (const descriptor of this.#passed.values()) closeSync(descriptor);
    this.#passed.clear();
  }
}

interface ModelSegment {
  readonly owner: Side;
  readonly descriptor: number;
  readonly bytes: number;
  isSealed: boolean;
  /** Its owner has ended: it is the host's to drop. */
  isOrphan: boolean;
  /** Who may be named its blocks; a worker's successors too. */
  readonly shared: Set<Side>;
  /** Who has a copy. */
  readonly passed: Set<Side>;
}

export class ModelSegments {
  readonly #libc = loadLibc();
  readonly #segments = new Map<number, ModelSegment>();
  readonly #pass: (to: Side, number: number, descriptor: number) => void;
  /** What was asked, by whom. */
  readonly asked: [Side, string][] = [];
  /** Whether a worker runs. */
  workerRuns = false;
  /** Whether the worker can be passed segments. */
  workerTakesThem = true;
  /** Bytes that one side may own. */
  bytesMax = Number.POSITIVE_INFINITY;
  #lastNumber = 0;

  /** @param pass puts a descriptor on a side's lane. */
  constructor(pass: (to: Side, number: number, descriptor: number) => void) {
    this.#pass = pass;
  }

  /** Answers a call to the server; undefined where it is none of these. */
  answer(from: Side, method: string, parameters: unknown): { readonly value: unknown } | undefined {
    const { bytes, segment = 0 } = parameters as { bytes?: number; segment?: number };
    if (!method.endsWith("_segment")) return undefined;
    this.asked.push([from, method]);
    if (method === "make_segment") return { value: { segment: this.#make(from, bytes ?? 0) } };
    const known = this.#segments.get(segment);
    if (method === "drop_segment") {
      known?.passed.delete(from);
      if (known?.owner === from || (known?.isOrphan && from === "host")) this.#drop(segment, known);
      return { value: null };
    }
    if (known === undefined) throw new AirlockError("unauthorized", `there is no segment ${segment}`);
    if (method === "seal_segment") this.#seal(known);
    else this.#share(segment, known, from === "host" ? "worker" : "host");
    return { value: null };
  }

  #make(owner: Side, bytes: number): number {
    if (this.ownedBytes(owner) + bytes > this.bytesMax) {
      throw new AirlockError("limit_exceeded", `${bytes} bytes are more than this peer may own`);
    }
    this.#lastNumber += 1;
    const descriptor = this.#libc.createMemory(`model-${this.#lastNumber}`);
    this.#libc.resize(descriptor, bytes);
    this.#segments.set(this.#lastNumber, {
      owner,
      descriptor,
      bytes,
      isSealed: false,
      isOrphan: false,
      shared: new Set([owner]),
      passed: new Set([owner]),
    });
    this.#pass(owner, this.#lastNumber, descriptor);
    return this.#lastNumber;
  }

  ownedBytes(owner: Side): number {
    const own = [...this.#segments.values()].filter((segment) => segment.owner === owner);
    return own.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  #seal(segment: ModelSegment): void {
    this.#libc.addSeals(segment.descriptor, Seal.shrink | Seal.grow | Seal.futureWrite);
    segment.isSealed = true;
  }

  #share(number: number, segment: ModelSegment, to: Side): void {
    if (to === "worker" && this.workerRuns && !this.workerTakesThem) {
      throw new AirlockError("bad_request", "the worker can't be passed segments");
    }
    if (!segment.isSealed) throw new AirlockError("bad_request", `segment ${number} is not sealed`);
    segment.shared.add(to);
    if (to === "host" || this.workerRuns) this.#passOnce(number, segment, to);
  }

  #passOnce(number: number, segment: ModelSegment, to: Side): void {
    if (segment.passed.has(to)) return;
    segment.passed.add(to);
    this.#pass(to, number, segment.descriptor);
  }

  #drop(number: number, { descriptor }: ModelSegment): void {
    this.#segments.delete(number);
    this.#libc.close(descriptor);
  }

  /** A relayed frame names a block of a segment: whoever it goes to has it from now on. False where it may not. */
  named(number: number): boolean {
    const segment = this.#segments.get(number);
    if (segment?.isSealed !== true || segment.shared.size < 2) return false;
    for (const side of segment.shared) this.#passOnce(number, segment, side);
    return true;
  }

  /** Blocks that their owner has not freed, as the generations in its segments tell. */
  blocks(owner: Side): number {
    return [...this.#segments.values()]
      .filter((segment) => segment.owner === owner)
      .reduce((sum, segment) => sum + this.#blocksIn(segment), 0);
  }

  #blocksIn({ descriptor, bytes }: ModelSegment): number {
    const generations = new Uint8Array(4 * (bytes / pageBytes));
    this.#libc.readAt(descriptor, generations, 0);
    // A header of one page has but one generation that means anything, and blocks may have written behind it.
    const isOneBlock = bytes !== 16 * 1024 ** 2 && bytes !== 64 * 1024 ** 2;
    const words = new Uint32Array(generations.buffer).subarray(0, isOneBlock ? 2 : undefined);
    return words.reduce((sum, word) => sum + (word === 0 ? 0 : 1), 0);
  }

  /** Numbers of the segments that there are. */
  get numbers(): number[] {
    return [...this.#segments.keys()];
  }

  /** A worker runs, and is passed what was shared with its place before: it may be named that over a line. */
  workerStarted(): void {
    this.workerRuns = true;
    for (const [number, segment] of this.#segments) {
      if (this.workerTakesThem && segment.shared.has("worker")) this.#passOnce(number, segment, "worker");
    }
  }

  /** The worker is gone: its segments stay as long as the host was passed them. */
  workerEnded(): void {
    this.workerRuns = false;
    for (const [number, segment] of this.#segments) {
      segment.passed.delete("worker");
      segment.isOrphan ||= segment.owner === "worker";
      if (segment.passed.size === 0) this.#drop(number, segment);
    }
  }

  [Symbol.dispose](): void {
    for (const [number, segment] of this.#segments) this.#drop(number, segment);
  }
}
