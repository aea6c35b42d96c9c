/** The library that torch's tensors are made by in shared memory: compiled once, whole or not at all, and missed with a reason. */
import { expect, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ServerEvent } from "../../src/server/events.ts";
import { findCompiler, NurseryLibrary } from "../../src/server/workers/nursery.ts";
import { useWorld } from "./support.ts";

const world = useWorld();
const compiler = findCompiler();
const folder = () => join(world.folder, "libraries");

/** A compiler of a few lines. */
function script(lines: string): string {
  const path = join(world.folder, "cc");
  writeFileSync(path, `#!/bin/sh\n${lines}\n`);
  chmodSync(path, 0o755);
  return path;
}

function library(compiler: string | null) {
  const missing: string[] = [];
  const found = new NurseryLibrary({ folder: folder(), compiler, onMissing: (reason) => void missing.push(reason) });
  return { find: () => found.find(), missing };
}

// Without a C compiler there is nothing to compile it.
test.skipIf(compiler === null)("is compiled when it is first asked for, and found from then on", async () => {
  const { find, missing } = library(compiler);
  expect(existsSync(folder())).toBe(false);
  const [path, same] = await Promise.all([find(), find()]);
  expect(path).toBe(same);
  expect(readdirSync(folder())).toEqual([expect.stringMatching(/^nursery-\w+-[0-9a-f]{16}\.so$/)]);
  expect(statSync(folder()).mode & 0o777).toBe(0o700);
  const made = statSync(String(path)).mtimeMs;
  // Another server's needs no compiler.
  expect(await library(null).find()).toBe(path);
  expect(statSync(String(path)).mtimeMs).toBe(made);
  expect(missing).toEqual([]);
});

// Without a C compiler there is nothing to compile it.
test.skipIf(compiler === null)("several servers that compile it at once all have it", async () => {
  const paths = await Promise.all(Array.from({ length: 4 }, () => library(compiler).find()));
  expect(new Set(paths).size).toBe(1);
  expect(readdirSync(folder())).toHaveLength(1);
});

test("without a compiler there is none, and it is told why, once", async () => {
  const { find, missing } = library(null);
  expect([await find(), await find()]).toEqual([undefined, undefined]);
  expect(missing).toEqual(["there is no C compiler (cc, gcc or clang) on PATH"]);
});

test.each([
  ["fails", "echo 'no such header' >&2; exit 1", "no such header"],
  ["dies", "kill -9 $$", "SIGKILL"],
  ["makes nothing", "exit 0", "ENOENT"],
])("where the compiler %s there is none, and nothing is left", async (_, lines, reason) => {
  const { find, missing } = library(script(lines));
  expect(await find()).toBeUndefined();
  expect(missing).toEqual([expect.stringContaining(reason)]);
  expect(readdirSync(folder())).toEqual([]);
});

test("is given up as its server stops", async () => {
  const missing: string[] = [];
  const compiler = script("exec sleep 60");
  const slow = new NurseryLibrary({ folder: folder(), compiler, onMissing: (reason) => void missing.push(reason) });
  const path = slow.find();
  await slow.close();
  expect(await path).toBeUndefined();
  expect(readdirSync(folder())).toEqual([]);
  expect(missing).toEqual([]);
});

test("where its folder can't be made, there is none", async () => {
  mkdirSync(world.folder, { recursive: true });
  writeFileSync(folder(), "");
  const { find, missing } = library(script("exit 0"));
  expect(await find()).toBeUndefined();
  expect(missing).toHaveLength(1);
});

test("a server goes on without", async () => {
  writeFileSync(folder(), "");
  const events: ServerEvent[] = [];
  const server = await world.serve({ libraries: folder(), onEvent: (event) => void events.push(event) });
  const airlock = await world.connect(server);
  const pack = await airlock.open(join(import.meta.dir, "..", "packs", "probe"));
  await pack.describe();
  expect(events.filter((event) => event.type === "nursery_missing")).toHaveLength(1);
});
