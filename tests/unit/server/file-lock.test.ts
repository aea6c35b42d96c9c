import { describe, expect, test } from "bun:test";
import { closeSync, existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileLocker, openLocked } from "../../../src/server/file-lock.ts";
import { systemClock } from "../../../src/transport/clock.ts";
import { loadLibc } from "../../../src/transport/libc.ts";
import { rejectionOf } from "../../support/errors.ts";
import { temporaryFolders } from "../../support/folders.ts";

const newFolder = temporaryFolders();
const { tryLock } = loadLibc();
const lockFile = fileLocker(tryLock, systemClock);
const never = new AbortController().signal;

describe("a lock", () => {
  test("is held by one at a time, in whatever order they come and go, and leaves no file", async () => {
    const path = join(newFolder(), "a.lock");
    let holders = 0;
    let most = 0;
    const use = async () => {
      const lock = await lockFile(path, never);
      holders += 1;
      most = Math.max(most, holders);
      await Bun.sleep(1);
      holders -= 1;
      lock.release();
    };
    await Promise.all(Array.from({ length: 8 }, use));
    expect(most).toBe(1);
    expect(readdirSync(join(path, ".."))).toEqual([]);
  });

  test("whose file was removed by its last holder is no lock: whoever waited on it starts over", () => {
    const path = join(newFolder(), "a.lock");
    const held = openLocked(path, "a", tryLock);
    if (held === undefined) return expect.unreachable();
    // As if the holder let go between another's opening the file and locking it.
    const waiter = openLocked(path, "a", (descriptor) => {
      rmSync(path);
      closeSync(held);
      return tryLock(descriptor);
    });
    expect(waiter).toBeUndefined();
    expect(existsSync(path)).toBe(false);
  });

  test("that somebody else holds is tried once where the signal has aborted", async () => {
    const path = join(newFolder(), "a.lock");
    const lock = await lockFile(path, AbortSignal.abort());
    expect((await rejectionOf(lockFile(path, AbortSignal.abort()))).code).toBe("cancelled");
    lock.release();
  });

  test("is let go where its folder was removed meanwhile", async () => {
    const folder = newFolder();
    const lock = await lockFile(join(folder, "a.lock"), never);
    rmSync(folder, { recursive: true });
    expect(() => lock.release()).not.toThrow();
  });
});
