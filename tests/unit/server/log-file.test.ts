import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { LogFile, logNamePattern, logPath } from "../../../src/server/workers/log-file.ts";
import { loadLibc } from "../../../src/transport/libc.ts";
import { temporaryFolders } from "../../support/folders.ts";

const newFolder = temporaryFolders();
const MiB = 1024 * 1024;

const { tryLock } = loadLibc();
const newFile = (path = join(newFolder(), "pack.log")) => new LogFile(path, tryLock);

/** Writes as the log of one worker. */
async function write(file: LogFile, text: string): Promise<void> {
  file.open();
  await file.append(Buffer.from(text));
  file.close();
}

describe("a log's path", () => {
  test("is readable by the pack's name, and apart for folders of one name", () => {
    expect(logPath("/logs", "My Pack!", "/a")).toMatch(/^\/logs\/My-Pack--[0-9a-f]{8}\.log$/);
    expect(logPath("/logs", "p", "/a")).not.toBe(logPath("/logs", "p", "/b"));
    expect(logPath("/logs", "p", "/a")).toBe(logPath("/logs", "p", "/a"));
  });

  test.each(["../../etc/passwd", "..", "/", "", ".hidden", "n".repeat(500), "-rf", "a\0b"])(
    "stays in its folder, whatever the pack is called: %j",
    (name) => {
      expect(logPath("/logs", name, "/a")).toMatch(/^\/logs\/[A-Za-z0-9_][A-Za-z0-9._-]{0,80}-[0-9a-f]{8}\.log$/);
    },
  );

  test("of any slot is found by its pack's name", () => {
    const path = logPath("", "my-pack", "/a");
    for (const name of [path, path.replace(/log$/, "2.log")]) expect(logNamePattern.exec(name)?.[1]).toBe("my-pack");
    expect(logNamePattern.exec(`${path}.1`)).toBeNull();
  });
});

describe("a log's file", () => {
  test("is made with its folder, and for its user only", async () => {
    const file = newFile(join(newFolder(), "deep", "pack.log"));
    await write(file, "hello\n");
    expect(statSync(file.path).mode & 0o777).toBe(0o600);
    expect(statSync(join(file.path, "..")).mode & 0o777).toBe(0o700);
  });

  test("is set aside once it is too large, also between two workers, and three are kept", async () => {
    const file = newFile();
    for (const name of ["first", "second", "third", "fourth"]) {
      await write(file, name);
      truncateSync(file.path, 10 * MiB);
    }
    await write(file, "now");
    expect(
      [file.path, `${file.path}.1`, `${file.path}.2`].map((path) => readFileSync(path).subarray(0, 6).toString()),
    ).toEqual(["now", "fourth", "third\0"]);
    expect(existsSync(`${file.path}.3`)).toBe(false);
  });

  test("is set aside while it is written to, and never grows past its limit", async () => {
    const file = newFile();
    file.open();
    const chunk = new Uint8Array(MiB).fill(120);
    for (let index = 0; index < 25; index++) await file.append(chunk);
    const sizes = [file.path, `${file.path}.1`, `${file.path}.2`].map((path) => statSync(path).size / MiB);
    expect(sizes).toEqual([5, 10, 10]);
    // It is still this log's: nobody else gets it.
    const other = newFile(file.path);
    await write(other, "x");
    expect(other.path).toBe(file.path.replace(".log", ".2.log"));
    file.close();
  });

  test("that is not too large is written on", async () => {
    const path = join(newFolder(), "pack.log");
    writeFileSync(path, "x");
    truncateSync(path, 10 * MiB - 2);
    await write(newFile(path), "on");
    expect(existsSync(`${path}.1`)).toBe(false);
  });

  test("that another worker writes to is left to it, however large, and given out again when that has ended", async () => {
    const ours = newFile();
    ours.open();
    truncateSync(ours.path, 20 * MiB);
    const theirs = newFile(ours.path);
    await write(theirs, "second");
    expect(theirs.path).toBe(ours.path.replace(".log", ".2.log"));
    expect(existsSync(`${ours.path}.1`)).toBe(false);
    ours.close();
    await write(theirs, "first");
    expect(theirs.path).toBe(ours.path);
  });
});
