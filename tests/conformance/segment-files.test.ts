/**
 * What every maker of segments does, and what a receiver can't do to them: the kernel's word only where the maker says so.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { closeSync, constants, fstatSync, openSync, readlinkSync, writeSync } from "node:fs";
import { loadLibc, Seal } from "../../src/transport/libc.ts";
import { newSegmentMaker, pageBytes, type SegmentMaker, segmentKinds } from "../../src/transport/segment-file.ts";
import { thrownBy } from "../support/errors.ts";

const libc = loadLibc();
const bytes = 4 * pageBytes;
const opened = new Set<number>();
afterAll(() => opened.forEach((each) => void closeSync(each)));

function made(maker: SegmentMaker): number {
  const descriptor = maker.make(bytes);
  opened.add(descriptor);
  return descriptor;
}

/** A segment with something in it, as its receivers get it, and its owner's view of it. */
function sealed(maker: SegmentMaker): { descriptor: number; view: Uint8Array } {
  const descriptor = made(maker);
  const view = libc.viewOf(libc.mapShared(descriptor, bytes), bytes);
  view[pageBytes] = 7;
  maker.seal(descriptor, bytes);
  return { descriptor, view };
}

function byteAt(descriptor: number, offset: number): number | undefined {
  const buffer = new Uint8Array(1);
  libc.readAt(descriptor, buffer, offset);
  return buffer[0];
}

function isRefused(action: () => unknown): boolean {
  try {
    action();
  } catch (error) {
    expect(String(error)).toMatch(/EPERM|EBUSY|EINVAL|EACCES/);
    return true;
  }
  return false;
}

describe.each(segmentKinds)("a segment by %s", (kind) => {
  const maker = newSegmentMaker(libc, kind);

  test("is of this kind", () => {
    expect(maker.kind).toBe(kind);
    expect(maker.sealed).toBe(kind === "memfd");
  });

  test("has its size, no name, no pages yet, and is zero", () => {
    const descriptor = made(maker);
    expect(libc.sizeOf(descriptor)).toBe(bytes);
    expect(fstatSync(descriptor).blocks).toBe(0);
    expect(readlinkSync(`/proc/self/fd/${descriptor}`)).toEndWith("(deleted)");
    expect(byteAt(descriptor, bytes - 1)).toBe(0);
  });

  test("is not inherited by what this process starts", () => {
    const descriptor = made(maker);
    const link = `/proc/self/fd/${descriptor}`;
    expect(Bun.spawnSync(["readlink", link]).stdout.toString()).toBe("");
    expect(readlinkSync(link)).not.toBe("");
  });

  test("takes its memory when its owner asks for it", () => {
    const descriptor = made(maker);
    libc.reserve(descriptor, bytes);
    expect(fstatSync(descriptor).blocks * 512).toBeGreaterThanOrEqual(bytes);
    const address = libc.mapShared(descriptor, bytes);
    expect(libc.populate(address, bytes)).toBe(true);
    libc.dontFork(address, bytes);
    libc.unmap(address, bytes);
  });

  test("shows its receivers what the owner writes, also after the seal", () => {
    const { descriptor, view } = sealed(maker);
    const address = libc.mapPrivate(descriptor, pageBytes, pageBytes);
    const received = libc.viewOf(address, pageBytes);
    expect(received[0]).toBe(7);
    view[pageBytes] = 8;
    expect(received[0]).toBe(8);
    expect(byteAt(descriptor, pageBytes)).toBe(8);
    libc.unmap(address, pageBytes);
  });

  test("keeps what a receiver writes into its own mapping from everybody else", () => {
    const { descriptor, view } = sealed(maker);
    const address = libc.mapPrivate(descriptor, pageBytes, pageBytes);
    const received = libc.viewOf(address, pageBytes);
    received[0] = 9;
    expect([received[0], view[pageBytes], byteAt(descriptor, pageBytes)]).toEqual([9, 7, 7]);
    libc.unmap(address, pageBytes);
  });

  test("outlives every descriptor for as long as somebody maps it", () => {
    const descriptor = maker.make(bytes);
    const address = libc.mapShared(descriptor, bytes);
    const view = libc.viewOf(address, bytes);
    view[5] = 5;
    closeSync(descriptor);
    expect(view[5]).toBe(5);
    libc.unmap(address, bytes);
  });

  test.each([-pageBytes, pageBytes])("is not sealed where its owner changed its size by %p", (by) => {
    const descriptor = made(maker);
    libc.resize(descriptor, bytes + by);
    const error = thrownBy(() => maker.seal(descriptor, bytes));
    expect([error.code, error.message]).toEqual(["bad_request", expect.stringContaining(`has ${bytes + by} bytes`)]);
  });

  const does = maker.sealed ? "cannot" : "can, as nothing but good manners keeps it from that,";
  const rights: readonly (readonly [string, (descriptor: number) => unknown])[] = [
    ["map it shared and writable", (descriptor) => libc.unmap(libc.mapShared(descriptor, bytes), bytes)],
    ["write to it", (descriptor) => writeSync(descriptor, Uint8Array.of(1), 0, 1, 0)],
    ["truncate it", (descriptor) => libc.resize(descriptor, 0)],
    ["let it grow", (descriptor) => libc.resize(descriptor, 2 * bytes)],
    ["let it grow by reserving", (descriptor) => libc.reserve(descriptor, 2 * bytes)],
    [
      "reopen it and write",
      (descriptor) => {
        const reopened = openSync(`/proc/self/fd/${descriptor}`, constants.O_RDWR);
        try {
          writeSync(reopened, Uint8Array.of(1), 0, 1, 0);
        } finally {
          closeSync(reopened);
        }
      },
    ],
    [
      "reopen it and map it shared and writable",
      (descriptor) => {
        const reopened = openSync(`/proc/self/fd/${descriptor}`, constants.O_RDWR);
        try {
          libc.unmap(libc.mapShared(reopened, bytes), bytes);
        } finally {
          closeSync(reopened);
        }
      },
    ],
  ];
  test.each(rights)(`a receiver ${does} %s`, (_, act) => {
    expect(isRefused(() => act(sealed(maker).descriptor))).toBe(maker.sealed);
  });

  test("a receiver cannot add seals", () => {
    const { descriptor } = sealed(maker);
    const before = maker.sealed ? libc.seals(descriptor) : undefined;
    expect(isRefused(() => libc.addSeals(descriptor, Seal.shrink))).toBe(true);
    if (maker.sealed) expect(libc.seals(descriptor)).toBe(before as number);
  });
});

describe("a maker", () => {
  test("is the twin where the kernel can make no memfd, or can't seal it", () => {
    const closed: number[] = [];
    const unable = () => {
      throw new Error("memfd_create failed: function not implemented (ENOSYS)");
    };
    const close = (each: number) => {
      closed.push(each);
      libc.close(each);
    };
    expect(newSegmentMaker({ ...libc, createMemory: unable }, "memfd").kind).toBe("shm");
    expect(closed).toEqual([]);
    expect(newSegmentMaker({ ...libc, close, addSeals: unable }, "memfd").kind).toBe("shm");
    expect(closed).toHaveLength(1);
  });

  test.each(segmentKinds)("by %s leaves no descriptor where a file can't have its size", (kind) => {
    const closed: number[] = [];
    const close = (each: number) => {
      closed.push(each);
      libc.close(each);
    };
    const maker = newSegmentMaker({ ...libc, close }, kind);
    closed.length = 0;
    expect(() => maker.make(2 ** 62)).toThrow();
    expect(closed).toHaveLength(1);
  });
});
