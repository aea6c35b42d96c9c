/**
 * The process that has torch and forks: what becomes of it where it, or torch, does not do as it should. What it forks is
 * tests/python/integration/test_forked_workers.py's to look at.
 */
import { afterEach, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Child } from "../../src/server/workers/child.ts";
import type { Forked } from "../../src/server/workers/fork-server.ts";
import { ForkServers } from "../../src/server/workers/fork-servers.ts";
import { ManualClock } from "../../src/transport/clock.ts";
import { loadLibc } from "../../src/transport/libc.ts";
import { temporaryFolders } from "../support/folders.ts";
import { isAlive, processesLeft, root, until } from "./support.ts";

const libc = loadLibc();
const newFolder = temporaryFolders();
/** An environment; only what it has installed matters here. */
const python = join(root, ".venv", "bin", "python");

afterEach(() => until(() => processesLeft().length === 0, "nothing is left"));

/** Fork servers for a torch that is these lines, and forks of workers that nobody tells to begin. */
function withTorch(source: string) {
  const folder = newFolder();
  mkdirSync(join(folder, "torch"));
  writeFileSync(join(folder, "torch", "__init__.py"), source);
  const clock = new ManualClock();
  const inherited = Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined);
  const common = Object.fromEntries(inherited);
  const servers = new ForkServers({ libc, clock, variables: common });
  const torch = { sitePackages: folder, modules: ["torch"], distributions: ["torch"] };
  const variables = { ...common, AIRLOCK_SHARED_TORCH: JSON.stringify(torch) };
  const pairs: (readonly [number, number])[] = [];
  const opened = (pair: readonly [number, number]) => {
    pairs.push(pair);
    return pair;
  };
  const fork = async (changed: object = {}): Promise<Forked> => {
    const ends = { output: opened(libc.pipe()), lifeline: opened(libc.socketPair()), stacks: opened(libc.pipe()) };
    return await servers.fork({ python, folder, variables, ...changed }, ends);
  };
  return {
    ...{ clock, servers, fork, variables },
    async [Symbol.asyncDispose]() {
      await servers.close();
      for (const descriptor of pairs.flat()) libc.close(descriptor);
    },
  };
}

function child(forked: Forked): Child {
  if ("refused" in forked) throw new Error(`nothing was forked: ${forked.refused}`);
  return forked;
}

function parentOf(pid: number): number {
  return Number(/PPid:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}

test("a torch that can't be imported is told, and not tried again", async () => {
  await using made = withTorch("raise OSError('libcudart.so.13: cannot open shared object file')");
  const refused = { refused: "OSError: libcudart.so.13: cannot open shared object file" };
  expect(await made.fork()).toEqual(refused);
  await until(() => processesLeft().length === 0, "it has ended");
  const again = made.fork();
  expect(processesLeft()).toEqual([]);
  expect(await again).toEqual(refused);
});

test("a torch whose import ends the process, or never ends, leaves workers to be spawned", async () => {
  await using dying = withTorch("import os; os._exit(1)");
  expect(await dying.fork()).toEqual({ refused: "the process that forks has ended" });
  await using endless = withTorch("import time; time.sleep(600)");
  const forked = endless.fork();
  await until(() => processesLeft().length === 1, "it is being imported");
  endless.clock.advance(30_000);
  expect(await forked).toEqual({ refused: "torch was not imported within 30 s" });
});

test("an interpreter that is none is told", async () => {
  await using made = withTorch("");
  const forked = await made.fork({ python: "/nowhere/bin/python" });
  expect(forked).toMatchObject({ refused: expect.stringContaining("ENOENT") });
});

test("many that are asked for before torch is there are all forked, whatever their variables weigh", async () => {
  await using made = withTorch("import time; time.sleep(0.2)");
  const variables = { ...made.variables, PADDING: "x".repeat(8_000) };
  const forked = await Promise.all(Array.from({ length: 50 }, () => made.fork({ variables })));
  expect(new Set(forked.map((each) => child(each).pid)).size).toBe(50);
});

test("variables that no message takes have the worker spawned", async () => {
  await using made = withTorch("");
  const variables = { ...made.variables, PADDING: "x".repeat(1_000_000) };
  expect(await made.fork({ variables })).toMatchObject({
    refused: expect.stringContaining("too many to be passed on"),
  });
  await until(() => processesLeft().length === 1, "what was forked is gone");
});

test("a number is let go of also where the one that forked is gone", async () => {
  await using made = withTorch("");
  const forked = child(await made.fork());
  process.kill(parentOf(forked.pid), "SIGKILL");
  const released = forked.release();
  await forked.ended;
  await released;
  await forked.release();
});

test("one that does not answer lets go of a child's number all the same", async () => {
  await using made = withTorch("");
  const forked = child(await made.fork());
  const parent = parentOf(forked.pid);
  process.kill(forked.pid, "SIGKILL");
  await forked.ended;
  process.kill(parent, "SIGSTOP");
  const released = forked.release();
  made.clock.advance(5_000);
  await released;
});

test("who waits for torch as the server stops is told", async () => {
  await using made = withTorch("import time; time.sleep(600)");
  const forked = made.fork();
  await until(() => processesLeft().length === 1, "it is being imported");
  made.servers.stop();
  expect(await forked).toEqual({ refused: "the server is stopping" });
});

test("a child that ends is told, and its number is kept until it is let go of", async () => {
  await using made = withTorch("");
  const forked = child(await made.fork());
  process.kill(forked.pid, "SIGTERM");
  expect(await forked.ended).toEqual({ code: null, signal: "SIGTERM" });
  expect(await Bun.file(`/proc/${forked.pid}/stat`).exists()).toBe(true);
  await forked.release();
  expect(await Bun.file(`/proc/${forked.pid}/stat`).exists()).toBe(false);
});

test("children end with the one that forked them, which is followed by another", async () => {
  await using made = withTorch("");
  const first = child(await made.fork());
  const parent = parentOf(first.pid);
  process.kill(parent, "SIGKILL");
  expect(await first.ended).toEqual({ code: null, signal: "SIGKILL" });
  await until(async () => parentOf(child(await made.fork()).pid) !== parent, "another forks");
});

test("one that does not answer is given up, with what it has forked", async () => {
  await using made = withTorch("");
  const first = child(await made.fork());
  process.kill(parentOf(first.pid), "SIGSTOP");
  const forked = made.fork();
  // Once it was asked.
  await Bun.sleep(10);
  made.clock.advance(5_000);
  expect(await forked).toEqual({ refused: "the process that forks does not answer" });
  expect(await first.ended).toEqual({ code: null, signal: "SIGKILL" });
});

test("one that has had no child for five minutes ends, and the next worker has one made", async () => {
  await using made = withTorch("");
  const first = child(await made.fork());
  const parent = parentOf(first.pid);
  made.clock.advance(600_000);
  expect(isAlive(parent)).toBe(true);
  process.kill(first.pid, "SIGKILL");
  await first.ended;
  await first.release();
  made.clock.advance(299_999);
  expect(isAlive(parent)).toBe(true);
  made.clock.advance(1);
  await until(() => !isAlive(parent), "it ends");
  child(await made.fork());
});

test("one that was made ahead is there for the first worker", async () => {
  await using made = withTorch("");
  await made.servers.warm(python, made.variables);
  await until(() => processesLeft().length === 1, "it is there");
  const [parent] = processesLeft();
  expect(parentOf(child(await made.fork()).pid)).toBe(parent ?? 0);
});

test("none is made once the server stops", async () => {
  await using made = withTorch("");
  await made.servers.close();
  expect(await made.fork()).toEqual({ refused: "Error: the server is stopping" });
});
