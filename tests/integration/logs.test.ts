/** Logs of packs that do their worst: everything is written, nobody else waits, nothing is left behind. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { basename, join } from "node:path";
import { type LogRecord, type Pack, type ServerEvent, Tuple } from "../../src/index.ts";
import { logPath } from "../../src/server/workers/log-file.ts";
import { rejectionOf } from "../support/errors.ts";
import { isAlive, packs, until, untilLogged, useWorld } from "./support.ts";

const world = useWorld();
const MiB = 1024 * 1024;

const logs = () => join(world.folder, "logs");

/** Calls another pack all the while; how often it was answered. */
async function answersDuring(other: Pack, work: Promise<unknown>): Promise<number> {
  let isDone = false;
  const done = work.finally(() => {
    isDone = true;
  });
  let answers = 0;
  while (!isDone) {
    expect(await other.call("Echo", { value: answers })).toEqual(Tuple.of(answers));
    answers += 1;
  }
  await done;
  return answers;
}

describe("a pack that writes", () => {
  test("a hundred megabytes has all of the last files full of it, and no call of another pack waits for that", async () => {
    const { server, pack } = await world.probe();
    const other = await (await world.connect(server)).open(join(packs, "probe"));
    await other.describe();
    const flood = pack.call("Flood", { megabytes: 100 });
    const answers = await answersDuring(other, flood);
    expect(answers).toBeGreaterThan(100);
    await pack.call("Print", { text: "the end" });
    const log = server.status().packs[0]?.workers[0]?.log as string;
    await until(() => readFileSync(log, "utf8").endsWith("the end on descriptor 2\n"), "all is written");
    const names = readdirSync(logs()).filter((name) => name.startsWith(basename(log)));
    expect(names).toHaveLength(3);
    for (const name of names) expect(readFileSync(join(logs(), name)).byteLength).toBeLessThanOrEqual(10 * MiB);
  });

  test("to a disk that is full goes on, costs nobody else a thing, and the server says so once", async () => {
    mkdirSync(logs());
    symlinkSync("/dev/full", logPath(logs(), "probe", join(packs, "probe")));
    const events: ServerEvent[] = [];
    const { server, pack } = await world.probe({ onEvent: (event) => events.push(event) });
    for (const text of ["one", "two", "three"]) await pack.call("Print", { text });
    const error = await rejectionOf(pack.call("End", { how: "_exit" }));
    expect(error.details.log).toContain("three");
    const told = events.filter((event) => event.type === "log_unwritable");
    expect(told).toEqual([
      {
        type: "log_unwritable",
        pack: "probe",
        path: server.status().packs[0]?.workers[0]?.log as string,
        reason: expect.any(String),
      },
    ]);
    expect((told[0] as { reason: string }).reason).toContain("ENOSPC");
  });

  test("and then closes stdout and stderr runs on", async () => {
    const { server, pack } = await world.probe();
    const { pid } = await pack.describe();
    await pack.call("Print", { text: "before" });
    await untilLogged(server, "before");
    await pack.call("CloseOutput", { descriptors: [1] });
    expect(await pack.call("Echo", { value: 1 })).toEqual(Tuple.of(1));
    await pack.call("CloseOutput", { descriptors: [2] });
    expect(await pack.call("Echo", { value: 2 })).toEqual(Tuple.of(2));
    expect((await pack.describe()).pid).toBe(pid);
  });

  test("by opening /dev/stdout anew, or from a child that it starts, is heard", async () => {
    const { server, pack } = await world.probe();
    await pack.call("PrintElsewhere");
    await untilLogged(server, "through /dev/stdout");
    await untilLogged(server, "from a child");
  });

  test("and leaves a child that got away with its output ends none the later for that", async () => {
    const { pack } = await world.probe();
    const [child] = (await pack.call("Escape")) as number[];
    const error = await rejectionOf(pack.call("End", { how: "_exit" }));
    expect(error.details.log).toContain("about to end by _exit");
    process.kill(child as number, "SIGKILL");
    await until(() => !isAlive(child as number), "the child is gone");
  });

  test("and is killed is said to be killed by somebody, or for want of memory, as the kernel counted", async () => {
    const { pack } = await world.probe();
    const { pid } = await pack.describe();
    const call = rejectionOf(pack.call("Sleep", { seconds: 60 }));
    process.kill(pid, "SIGKILL");
    expect((await call).details.exit).toMatch(/SIGKILL \((killed by somebody|probably out of memory|killed, by hand)/);
  });
});

test("what forked children crash with is not their parent's stack", async () => {
  const { server, pack } = await world.probe();
  await pack.call("CrashInChild");
  await untilLogged(server, "Fatal Python error");
  const error = await rejectionOf(pack.call("End", { how: "SIGKILL" }));
  expect(error.details.stack).toBeUndefined();
});

test("a pack's log records come to a TypeScript host, and names of Airlock's own events are refused", async () => {
  const { pack } = await world.probe();
  const records: LogRecord[] = [];
  const end = pack.onLog((record) => records.push(record));
  await pack.call("Log", { how: "levels" });
  await until(() => records.length === 3, "they came");
  const { pid } = await pack.describe();
  expect(records.map(({ name, level, message }) => [name, level, message])).toEqual([
    ["probe.nodes", 20, "info 7"],
    ["probe.nodes", 40, "error"],
    ["probe.quiet", 30, "warning"],
  ]);
  expect(records[0]).toMatchObject({ pid, function: "run", thread: "MainThread" });
  end();
  expect((await rejectionOf(pack.emit("airlock.log"))).code).toBe("bad_request");
  expect(() => pack.on("airlock.log", () => undefined)).toThrow("reserved");
});
