/**
 * Makes segments: asks the server, takes the memory now rather than at the first write, and has the server seal it.
 *
 * Memory is taken in steps between which the event loop has its turn, as the kernel clears every page. Where there is not
 * enough, it says so before it begins: a process that takes what isn't there is killed, or has another one killed.
 */
import * as v from "valibot";
import { validate } from "../../transport/control.ts";
import { Passed, type ReceivingLane } from "../../transport/descriptor-lane.ts";
import { AirlockError } from "../../transport/errors.ts";
import type { Libc } from "../../transport/libc.ts";
import { pageBytes } from "../../transport/segment-file.ts";
import { memoryRoom, type Room } from "./memory-room.ts";
import { headerPagesOf, OwnSegment } from "./own-segment.ts";

/** What is taken before the event loop has its turn: a few milliseconds. */
const stepBytes = 16 * 1024 * 1024;

export type SegmentCalls = Pick<
  Libc,
  "close" | "sizeOf" | "mapShared" | "unmap" | "dontFork" | "populate" | "reserve" | "viewOf"
>;

export interface SegmentMakerOptions {
  readonly libc: SegmentCalls;
  readonly lane: Pick<ReceivingLane, "take" | "discard">;
  /** Calls a method of the server, on nobody's behalf. */
  callServer(method: string, parameters: object): Promise<unknown>;
  /** How much memory there is; what the system says by default. */
  readonly room?: () => Room;
}

/** What a segment is for. */
export interface SegmentPlan {
  readonly bytes: number;
  readonly audience: number | undefined;
  /** Whether it is one block, and nothing else. */
  readonly isOneBlock: boolean;
}

const madeSchema = v.object({ segment: v.number() });

export class SegmentMaker {
  readonly #options: SegmentMakerOptions;

  constructor(options: SegmentMakerOptions) {
    this.#options = options;
  }

  /** @throws AirlockError `limit_exceeded`, or as the server answers. */
  async make(plan: SegmentPlan): Promise<OwnSegment> {
    const { callServer, lane } = this.#options;
    this.#checkRoom(plan.bytes);
    const { bytes, audience } = plan;
    const parameters = { bytes, ...(audience !== undefined && { audience }) };
    const { segment } = validate(madeSchema, await callServer("make_segment", parameters), "answer to make_segment");
    try {
      return await this.#take(segment, lane.take(Passed.segment, segment), plan);
    } catch (error) {
      // Nobody was given it, so nobody misses it.
      await callServer("drop_segment", { segment }).catch(() => undefined);
      throw error;
    }
  }

  #checkRoom(bytes: number): void {
    const room = (this.#options.room ?? memoryRoom)();
    if (bytes <= room.bytes) return;
    throw new AirlockError(
      "limit_exceeded",
      `${inMiB(bytes)} of memory for arrays are needed, and ${room.of} has ${inMiB(room.bytes)} left`,
      { hint: "send less at once, or let go of arrays that came before" },
    );
  }

  async #take(number: number, descriptor: number, { bytes, audience, isOneBlock }: SegmentPlan): Promise<OwnSegment> {
    const { libc } = this.#options;
    let address: number | undefined;
    try {
      if (libc.sizeOf(descriptor) !== bytes) throw new AirlockError("protocol_error", "a segment is of another length");
      address = libc.mapShared(descriptor, bytes);
      libc.dontFork(address, bytes);
      await this.#populate(descriptor, address, bytes);
      await this.#options.callServer("seal_segment", { segment: number });
      const headerPages = isOneBlock ? 1 : headerPagesOf(bytes);
      return new OwnSegment({ number, audience, descriptor, address, bytes, headerPages }, libc);
    } catch (error) {
      if (address !== undefined) libc.unmap(address, bytes);
      libc.close(descriptor);
      throw error;
    }
  }

  async #populate(descriptor: number, address: number, bytes: number): Promise<void> {
    const { libc } = this.#options;
    try {
      for (let at = 0; at < bytes; at += stepBytes) {
        if (!libc.populate(address + at, Math.min(stepBytes, bytes - at))) return libc.reserve(descriptor, bytes);
        await nextTurn();
      }
    } catch (error) {
      const message = `the system has no ${inMiB(bytes)} of memory for arrays: ${String(error)}`;
      throw new AirlockError("limit_exceeded", message, {}, { cause: error });
    }
  }
}

/** Settles when the event loop has been round once. */
export async function nextTurn(): Promise<void> {
  await new Promise<void>((resolve) => setImmediate(resolve));
}

export function inMiB(bytes: number): string {
  return `${Math.ceil(bytes / 1024 / 1024)} MiB`;
}

/** Whole pages for so many bytes. */
export function pagesFor(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / pageBytes));
}

/** Copies bytes so that the event loop has its turn in between. */
export async function copyInSteps(data: Uint8Array, write: (offset: number, part: Uint8Array) => void): Promise<void> {
  for (let at = 0; at < data.byteLength; at += stepBytes) {
    if (at > 0) await nextTurn();
    write(at, data.subarray(at, at + stepBytes));
  }
}
