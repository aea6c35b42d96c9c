import { describe, expect, test } from "bun:test";
import { closeSync, readFileSync, symlinkSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { WorkerLog } from "../../../src/server/workers/worker-log.ts";
import type { WorkerOutput } from "../../../src/server/workers/worker-output.ts";
import { ManualClock, systemClock } from "../../../src/transport/clock.ts";
import { loadLibc } from "../../../src/transport/libc.ts";
import { temporaryFolders } from "../../support/folders.ts";
import { newWorkerLog } from "../../support/logs.ts";
import { until } from "../../support/until.ts";

const newFolder = temporaryFolders();
const libc = loadLibc();
const stamp = "2026-01-02T03:04:05.678Z 42";

/** A worker that writes to the log until it is closed. */
function follow(log: WorkerLog): { output: WorkerOutput; write: (text: string) => void; close: () => void } {
  const output = log.open();
  const [readEnd, writeEnd] = libc.pipe();
  output.follow(readEnd, 42);
  return { output, write: (text) => void writeSync(writeEnd, text), close: () => closeSync(writeEnd) };
}

/** One worker's life. */
async function run(log: WorkerLog, text: string, stack?: string): Promise<void> {
  const { output, write, close } = follow(log);
  write(text);
  close();
  await output.end(stack);
}

const textOf = (log: WorkerLog) => readFileSync(log.path, "utf8");

describe("a worker's log", () => {
  test("has each line with its time and process id, and what the worker wrote last once that has ended", async () => {
    const log = newWorkerLog(join(newFolder(), "pack.log"));
    await run(log, "one\n\ntwo");
    expect(textOf(log)).toBe(`${stamp} one\n\n${stamp} two\n`);
    expect(log.tail()).toBe("one\n\ntwo");
  });

  test("is written on by the next worker, and its tail is that one's alone", async () => {
    const log = newWorkerLog(join(newFolder(), "pack.log"));
    expect(log.tail()).toBe("");
    await run(log, "old\n");
    await run(log, "one\ntwo\nthree\n");
    expect(log.tail()).toBe("one\ntwo\nthree");
    expect(log.tail(2)).toBe("two\nthree");
    await run(log, "");
    expect(log.tail()).toBe("");
    expect(textOf(log).split("\n")).toHaveLength(5);
  });

  test("keeps a bounded tail, however much is written", async () => {
    const log = newWorkerLog(join(newFolder(), "pack.log"));
    const { output, write, close } = follow(log);
    // Less than a pipe holds: nobody reads while this loop runs.
    for (let line = 0; line < 50; line++) write(`${"x".repeat(1000)} ${line}\n`);
    close();
    await output.end();
    expect(log.tail().length).toBeLessThanOrEqual(8192);
    expect(log.tail()).toEndWith(" 49");
  });

  test("has the stack of a crash behind all that was written, and not in the tail", async () => {
    const log = newWorkerLog(join(newFolder(), "pack.log"));
    await run(log, "last words", "Fatal Python error\n  File x\n");
    expect(textOf(log)).toBe(`${stamp} last words\n${stamp} Fatal Python error\n${stamp}   File x\n`);
    expect(log.tail()).toBe("last words");
  });

  test("shows a line that nothing ends after a while", async () => {
    const clock = new ManualClock();
    const log = newWorkerLog(join(newFolder(), "pack.log"), { clock });
    const { output, write, close } = follow(log);
    write("loading …");
    await until(() => {
      clock.advance(1_000);
      return log.tail() === "loading …";
    }, "the line is there");
    close();
    await output.end();
    expect(textOf(log)).toBe(`${stamp} loading …\n`);
  });

  test("ends without a child that got away and holds the pipe", async () => {
    const log = newWorkerLog(join(newFolder(), "pack.log"));
    const { output, write, close } = follow(log);
    write("last words\n");
    await output.end();
    expect(log.tail()).toBe("last words");
    expect(textOf(log)).toBe(`${stamp} last words\n`);
    close();
  });

  test("goes on where the file takes no more, says so once, and counts what was lost when it takes lines again", async () => {
    const path = join(newFolder(), "pack.log");
    symlinkSync("/dev/full", path);
    const told: string[] = [];
    const log = newWorkerLog(path, { onUnwritable: (where, error) => told.push(`${where}: ${error}`) });
    const { output, write, close } = follow(log);
    for (let line = 0; line < 5; line++) {
      write(`lost ${line}\n`);
      await until(() => log.tail().endsWith(`lost ${line}`), "it was read");
    }
    close();
    await output.end();
    expect(told).toHaveLength(1);
    expect(told[0]).toMatch(/pack\.log: .*ENOSPC/);
    expect(log.tail()).toEndWith("lost 4");
    unlinkSync(path);
    await run(log, "there is room again\n");
    expect(textOf(log)).toContain("there is room again");
  });

  test("holds back whoever writes more than it keeps up with, and loses none of it", async () => {
    const log = newWorkerLog(join(newFolder(), "pack.log"));
    const output = log.open();
    const [readEnd, writeEnd] = libc.pipe();
    const line = `${"x".repeat(99)}\n`;
    const command = ["sh", "-c", `yes ${line.trim()} | head -n 50000`];
    const child = Bun.spawn(command, { stdio: ["ignore", writeEnd, "inherit"] });
    libc.close(writeEnd);
    output.follow(readEnd, 42);
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    await child.exited;
    await output.end();
    clearInterval(timer);
    const lines = textOf(log).split("\n").length - 1;
    expect(lines).toBe(50_000);
    // The loop had its turns meanwhile.
    expect(turns).toBeGreaterThan(10);
  });
});

test("a log's file is the worker's as long as it writes, and no longer", async () => {
  const folder = newFolder();
  const first = newWorkerLog(join(folder, "pack.log"), { clock: systemClock });
  const second = newWorkerLog(join(folder, "pack.log"));
  const { output, close } = follow(first);
  await run(second, "second\n");
  expect(second.path).toBe(join(folder, "pack.2.log"));
  close();
  await output.end();
  await run(second, "second\n");
  expect(second.path).toBe(join(folder, "pack.log"));
});
