import { describe, expect, test } from "bun:test";
import { closeSync, existsSync, readFileSync, statSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { LogFile, logNamePattern, logPath } from "../../../src/server/workers/log-file.ts";
import { loadLibc } from "../../../src/transport/libc.ts";
import { temporaryFolders } from "../../support/folders.ts";

const newFolder = temporaryFolders();
const MiB = 1024 * 1024;

const { tryLock } = loadLibc();
const newLog = (path = join(newFolder(), "pack.log")) => new LogFile(path, tryLock);

/** Opens the log as a new worker would, and writes as that worker. */
function write(log: LogFile, text: string): void {
  const descriptor = log.open();
  writeSync(descriptor, text);
  closeSync(descriptor);
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
});

describe("a log", () => {
  test("is made with its folder, and for its user only", () => {
    const log = newLog(join(newFolder(), "deep", "pack.log"));
    write(log, "hello\n");
    expect(statSync(log.path).mode & 0o777).toBe(0o600);
    expect(statSync(join(log.path, "..")).mode & 0o777).toBe(0o700);
  });

  test("tells the last lines of the current worker, not of those before", () => {
    const log = newLog();
    write(log, "old\n");
    write(log, "one\ntwo\nthree\n");
    expect(log.tail()).toBe("one\ntwo\nthree");
    expect(log.tail(2)).toBe("two\nthree");
    write(log, "");
    expect(log.tail()).toBe("");
    expect(readFileSync(log.path, "utf8")).toBe("old\none\ntwo\nthree\n");
  });

  test("tells no more than it was asked for, however long a line is", () => {
    const log = newLog();
    write(log, `${"x".repeat(100_000)}\nend`);
    expect(log.tail(20, 1000)).toHaveLength(1000);
    expect(log.tail(1)).toBe("end");
  });

  test("tells nothing where there is no file, and copes with one that was cut", () => {
    const log = newLog();
    expect(log.tail()).toBe("");
    write(log, "old ".repeat(100));
    write(log, "new");
    truncateSync(log.path, 2);
    expect(log.tail()).toBe("");
  });

  test("is set aside once it is too large, and three are kept", () => {
    const log = newLog();
    for (const name of ["first", "second", "third", "fourth"]) {
      write(log, name);
      expect(log.tail()).toBe(name);
      truncateSync(log.path, 10 * MiB);
    }
    write(log, "now");
    expect(log.tail()).toBe("now");
    expect(
      [log.path, `${log.path}.1`, `${log.path}.2`].map((path) => readFileSync(path).subarray(0, 6).toString()),
    ).toEqual(["now", "fourth", "third\0"]);
    expect(existsSync(`${log.path}.3`)).toBe(false);
  });

  test("that is not too large is written on", () => {
    const path = join(newFolder(), "pack.log");
    writeFileSync(path, "x");
    truncateSync(path, 10 * MiB - 1);
    write(newLog(path), "on");
    expect(existsSync(`${path}.1`)).toBe(false);
  });

  test("that another worker writes to is left to it, however large, and given out again when that has ended", () => {
    const ours = newLog();
    const theirs = newLog(ours.path);
    const held = ours.open();
    truncateSync(ours.path, 20 * MiB);
    write(theirs, "second");
    expect(theirs.path).toBe(ours.path.replace(".log", ".2.log"));
    expect(theirs.tail()).toBe("second");
    expect(existsSync(`${ours.path}.1`)).toBe(false);
    closeSync(held);
    write(theirs, "first");
    expect(theirs.path).toBe(ours.path);
  });

  test("of any slot is found by its pack's name", () => {
    const path = logPath("", "my-pack", "/a");
    for (const name of [path, path.replace(/log$/, "2.log")]) expect(logNamePattern.exec(name)?.[1]).toBe("my-pack");
    expect(logNamePattern.exec(`${path}.1`)).toBeNull();
  });
});
