import { describe, expect, test } from "bun:test";
import { Arena } from "../../../../src/client/memory/arena.ts";
import { headerPagesOf, OwnSegment } from "../../../../src/client/memory/own-segment.ts";
import type { SegmentPlan } from "../../../../src/client/memory/segment-maker.ts";
import { ManualClock } from "../../../../src/transport/clock.ts";
import { AirlockError } from "../../../../src/transport/errors.ts";
import type { Attachment } from "../../../../src/transport/frame.ts";
import { rejectionOf } from "../../../support/errors.ts";

const MiB = 1024 * 1024;

/** Makes segments of ordinary memory, each at an address of its own, within a limit. */
class FakeMaker {
  readonly made: SegmentPlan[] = [];
  readonly #buffers = new Map<number, ArrayBuffer>();
  limitBytes = Number.POSITIVE_INFINITY;

  async make(plan: SegmentPlan): Promise<OwnSegment> {
    await Promise.resolve();
    const used = [...this.#buffers.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
    if (used + plan.bytes > this.limitBytes) throw new AirlockError("limit_exceeded", "there is no more");
    this.made.push(plan);
    const number = this.made.length;
    const address = number * 2 ** 40;
    this.#buffers.set(address, new ArrayBuffer(plan.bytes));
    const headerPages = plan.isOneBlock ? 1 : headerPagesOf(plan.bytes);
    const { bytes, audience } = plan;
    return new OwnSegment({ number, audience, descriptor: number, address, bytes, headerPages }, this.#calls);
  }

  readonly #calls = {
    viewOf: (address: number, bytes: number): Uint8Array<ArrayBuffer> => {
      const base = Math.floor(address / 2 ** 40) * 2 ** 40;
      const buffer = this.#buffers.get(base);
      if (buffer === undefined) throw new Error("there is nothing mapped");
      return new Uint8Array(buffer, address - base, bytes);
    },
    unmap: (address: number) => {
      if (!this.#buffers.delete(address)) throw new Error("there is nothing mapped");
    },
  };

  generation({ segment, page }: Pick<Attachment, "segment" | "page">): number {
    const buffer = this.#buffers.get(segment * 2 ** 40) ?? expect.unreachable();
    return new DataView(buffer).getUint32(4 * page, true);
  }
}

type Reclaim = (tryAgain: () => Promise<boolean>) => Promise<string | undefined>;

function newArena(options: { readonly keptBytesMax?: number; readonly reclaim?: Reclaim } = {}) {
  const { keptBytesMax = 1024 * MiB, reclaim = async () => "nobody holds any" } = options;
  const maker = new FakeMaker();
  const dropped: number[] = [];
  const clock = new ManualClock();
  const arena = new Arena({ clock, maker, keptBytesMax, reclaim, onDropped: ({ number }) => dropped.push(number) });
  return { arena, clock, maker, dropped };
}

describe("an arena", () => {
  test("gives back what has been empty for half a minute, and nothing that is used meanwhile", async () => {
    const { arena, clock, dropped } = newArena();
    const small = await arena.allocateSoon(MiB, 0);
    const large = await arena.allocateSoon(40 * MiB, 0);
    clock.advance(100_000);
    expect(dropped).toEqual([]);
    arena.free(large);
    clock.advance(20_000);
    arena.free(small);
    clock.advance(9_999);
    expect(dropped).toEqual([]);
    clock.advance(1);
    expect(dropped).toEqual([2]);
    // It is looked at again after as long.
    const again = await arena.allocateSoon(MiB, 0);
    clock.advance(30_000);
    expect(dropped).toEqual([2]);
    arena.free(again);
    clock.advance(30_000);
    expect(dropped).toEqual([2, 1]);
  });

  test("puts blocks of a kind together: small ones, middling ones, and each larger one alone", async () => {
    const { arena, maker } = newArena();
    for (const bytes of [1, MiB, 100_000]) expect((await arena.allocateSoon(bytes, 0)).segment).toBe(1);
    for (const bytes of [MiB + 1, 32 * MiB]) expect((await arena.allocateSoon(bytes, 0)).segment).toBe(2);
    const large = await arena.allocateSoon(32 * MiB + 1, 0);
    expect(large).toMatchObject({ segment: 3, page: 1, pages: 8193 });
    expect(maker.made.map(({ bytes, isOneBlock }) => [bytes, isOneBlock])).toEqual([
      [16 * MiB, false],
      [64 * MiB, false],
      [8194 * 4096, true],
    ]);
  });

  test("keeps audiences apart", async () => {
    const { arena } = newArena();
    expect((await arena.allocateSoon(1, 0)).segment).toBe(1);
    expect(arena.allocate(1, 5)).toBeUndefined();
    expect((await arena.allocateSoon(1, 5)).segment).toBe(2);
  });

  test("begins blocks behind the generations, whole pages each", async () => {
    const { arena } = newArena();
    const first = await arena.allocateSoon(4097, 0);
    expect([first.page, first.pages]).toEqual([4, 2]);
    expect((await arena.allocateSoon(1, 0)).page).toBe(6);
  });

  test("writes a block's generation as it gives it out, and takes it away as it is freed", async () => {
    const { arena, maker } = newArena();
    const block = await arena.allocateSoon(1, 0);
    expect(maker.generation(block)).toBe(block.generation);
    expect(block.generation).toBeGreaterThan(0);
    arena.free(block);
    expect(maker.generation(block)).toBe(0);
    const next = await arena.allocateSoon(1, 0);
    expect([next.page, next.generation === block.generation]).toEqual([block.page, false]);
  });

  test("makes one segment for all that wait for the same", async () => {
    const { arena, maker } = newArena();
    const blocks = await Promise.all(Array.from({ length: 20 }, () => arena.allocateSoon(1000, 0)));
    expect(new Set(blocks.map(({ page }) => page)).size).toBe(20);
    expect(maker.made.length).toBe(1);
  });

  test("uses a large segment again for what leaves little of it unused", async () => {
    const { arena, maker } = newArena();
    const block = await arena.allocateSoon(100 * MiB, 0);
    arena.free(block);
    expect(arena.allocate(70 * MiB, 0)).toBeUndefined();
    expect(arena.allocate(101 * MiB, 0)).toBeUndefined();
    expect(arena.allocate(90 * MiB, 0)?.segment).toBe(block.segment);
    expect(maker.made.length).toBe(1);
  });

  test("gives empty segments back above a mark, and keeps those that are in use", async () => {
    const { arena, dropped } = newArena({ keptBytesMax: 100 * MiB });
    const small = await arena.allocateSoon(1, 0);
    const [first, second] = [await arena.allocateSoon(50 * MiB, 0), await arena.allocateSoon(60 * MiB, 0)];
    arena.free(first);
    expect(dropped).toEqual([first.segment]);
    arena.free(second);
    arena.free(small);
    expect(dropped).toEqual([first.segment]);
  });

  test("that is short drops what is empty, of whatever kind, before it asks anybody", async () => {
    let asked = 0;
    const { arena, maker, dropped } = newArena({
      reclaim: async () => {
        asked += 1;
        return "nobody";
      },
    });
    maker.limitBytes = 100 * MiB;
    arena.free(await arena.allocateSoon(50 * MiB, 0));
    arena.free(await arena.allocateSoon(1, 0));
    expect((await arena.allocateSoon(90 * MiB, 0)).segment).toBe(3);
    expect([asked, dropped.sort()]).toEqual([0, [1, 2]]);
  });

  test("that is short has what comes back when it asked", async () => {
    let held: Attachment | undefined;
    const { arena, maker } = newArena({
      reclaim: async (tryAgain) => {
        expect(await tryAgain()).toBe(false);
        arena.free(held ?? expect.unreachable());
        expect(await tryAgain()).toBe(true);
        return undefined;
      },
    });
    maker.limitBytes = 100 * MiB;
    held = await arena.allocateSoon(60 * MiB, 0);
    expect((await arena.allocateSoon(55 * MiB, 0)).segment).toBe(held.segment);
  });

  test("that is short makes one segment of several that come back one after the other", async () => {
    const held: Attachment[] = [];
    const outcomes: boolean[] = [];
    const { arena, maker, dropped } = newArena({
      reclaim: async (tryAgain) => {
        for (const block of held) {
          arena.free(block);
          outcomes.push(await tryAgain());
        }
        return undefined;
      },
    });
    maker.limitBytes = 100 * MiB;
    for (let count = 0; count < 2; count++) held.push(await arena.allocateSoon(40 * MiB, 0));
    expect((await arena.allocateSoon(90 * MiB, 0)).segment).toBe(3);
    expect([outcomes, dropped]).toEqual([
      [false, true],
      [1, 2],
    ]);
  });

  test("that is short has what others let go of, and what it gave back itself because it keeps no more", async () => {
    const held: Attachment[] = [];
    const { arena, maker, dropped } = newArena({
      keptBytesMax: 10 * MiB,
      reclaim: async (tryAgain) => {
        if (held.length > 0) arena.free(held[0] ?? expect.unreachable());
        else maker.limitBytes = 300 * MiB;
        return (await tryAgain()) ? undefined : "nobody holds any";
      },
    });
    maker.limitBytes = 100 * MiB;
    held.push(await arena.allocateSoon(60 * MiB, 0));
    expect((await arena.allocateSoon(90 * MiB, 0)).segment).toBe(2);
    expect(dropped).toEqual([1]);
    held.length = 0;
    expect((await arena.allocateSoon(150 * MiB, 0)).segment).toBe(3);
  });

  test("that stays short says what it was asked for, and who holds what", async () => {
    const { arena, maker } = newArena({ reclaim: async () => "pack blur holds 60 MiB" });
    maker.limitBytes = 100 * MiB;
    await arena.allocateSoon(60 * MiB, 0);
    const error = await rejectionOf(arena.allocateSoon(55 * MiB, 0));
    expect([error.code, error.message]).toEqual([
      "limit_exceeded",
      "there is no more; of 61 MiB that this process has for arrays, pack blur holds 60 MiB",
    ]);
    // And serves what it has room for.
    expect((await arena.allocateSoon(1, 0)).segment).toBe(2);
  });
});
