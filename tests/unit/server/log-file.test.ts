import { describe, expect, test } from "bun:test";
import { closeSync, existsSync, readFileSync, statSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { LogFile, logPath } from "../../../src/server/workers/log-file.ts";
import { temporaryFolders } from "../../support/folders.ts";

const newFolder = temporaryFolders();
const MiB = 1024 * 1024;

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
    const log = new LogFile(join(newFolder(), "deep", "pack.log"));
    write(log, "hello\n");
    expect(statSync(log.path).mode & 0o777).toBe(0o600);
    expect(statSync(join(log.path, "..")).mode & 0o777).toBe(0o700);
  });

  test("tells the last lines of the current worker, not of those before", () => {
    const log = new LogFile(join(newFolder(), "pack.log"));
    write(log, "old\n");
    write(log, "one\ntwo\nthree\n");
    expect(log.tail()).toBe("one\ntwo\nthree");
    expect(log.tail(2)).toBe("two\nthree");
    write(log, "");
    expect(log.tail()).toBe("");
    expect(readFileSync(log.path, "utf8")).toBe("old\none\ntwo\nthree\n");
  });

  test("tells no more than it was asked for, however long a line is", () => {
    const log = new LogFile(join(newFolder(), "pack.log"));
    write(log, `${"x".repeat(100_000)}\nend`);
    expect(log.tail(20, 1000)).toHaveLength(1000);
    expect(log.tail(1)).toBe("end");
  });

  test("tells nothing where there is no file, and copes with one that was cut", () => {
    const log = new LogFile(join(newFolder(), "pack.log"));
    expect(log.tail()).toBe("");
    write(log, "old ".repeat(100));
    write(log, "new");
    truncateSync(log.path, 2);
    expect(log.tail()).toBe("");
  });

  test("is set aside once it is too large, and three are kept", () => {
    const log = new LogFile(join(newFolder(), "pack.log"));
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
    write(new LogFile(path), "on");
    expect(existsSync(`${path}.1`)).toBe(false);
  });
});
