/** Packs that take more than they may: each is told what it exceeded, loses its own worker, and nobody else anything. */
import { describe, expect, test } from "bun:test";
import { appendFileSync, cpSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type AirlockError, connect, type Pack, type ServeOptions } from "../../src/index.ts";
import { rejectionOf } from "../support/errors.ts";
import { newBystander } from "./bystander.ts";
import { startServer } from "./processes.ts";
import { isAlive, packs, until, useWorld } from "./support.ts";

const world = useWorld();

/** A copy of the greedy pack with these limits, each a line of TOML, on a server with a bystander. */
async function greedyPack(limits: string, options: ServeOptions = {}) {
  const folder = join(world.folder, "greedy");
  cpSync(join(packs, "greedy"), folder, { recursive: true });
  appendFileSync(join(folder, "pyproject.toml"), `[tool.comfy.isolation.limits]\n${limits}\n`);
  const bystander = await newBystander(world, options);
  const airlock = await world.connect(bystander.server);
  const pack = await airlock.open(folder);
  return { bystander, folder, pack };
}

const pidOf = async (pack: Pack): Promise<number> => (await pack.describe()).pid;

/** The call was ended for this limit, its worker with it, and the next call has a fresh one. */
async function endedFor(pack: Pack, call: () => Promise<unknown>, what: RegExp, key: string): Promise<AirlockError> {
  const before = await pidOf(pack);
  const error = await rejectionOf(call());
  expect(error.code).toBe("worker_died");
  expect(error.message).toMatch(new RegExp(`^pack greedy: its worker \\(pid ${before}\\) was ended: ${what.source}`));
  expect(error.details.hint).toContain(`${key} in ${join(world.folder, "greedy", "pyproject.toml")}`);
  expect(isAlive(before)).toBe(false);
  expect(await pidOf(pack)).not.toBe(before);
  return error;
}

describe("a worker over its limit is ended alone, says what it exceeded, and is followed by a fresh one:", () => {
  test("memory", async () => {
    const { bystander, pack } = await greedyPack('memory = "200MiB"');
    await using _ = bystander;
    const call = () => pack.call("Allocate", { size: 400 * 2 ** 20 });
    await endedFor(pack, call, /memory [\d.]+ [MG]iB of 200 MiB/, "limits.memory");
    await bystander.isUndisturbed();
  });

  test("processes, also such as have left its process group", async () => {
    const { bystander, pack, folder } = await greedyPack("processes = 3");
    await using _ = bystander;
    const file = join(folder, "children");
    const call = () => pack.call("Fork", { count: 5, file });
    await endedFor(pack, call, /processes 6 of 3/, "limits.processes");
    const left = readFileSync(file, "utf8").split(" ").map(Number);
    expect(left).toHaveLength(5);
    await until(() => !left.some(isAlive), "its children are gone");
    await bystander.isUndisturbed();
  });
});

describe("a worker within its limits lives on:", () => {
  test("memory that its children share counts once", async () => {
    const { bystander, pack } = await greedyPack('memory = "300MiB"\nprocesses = 5');
    await using _ = bystander;
    const before = await pidOf(pack);
    const call = rejectionOf(pack.call("Allocate", { size: 150 * 2 ** 20, processes: 3 }, { deadlineMs: 1500 }));
    expect((await call).code).toBe("deadline_exceeded");
    expect(isAlive(before)).toBe(true);
  });

  test("a file too many is an OSError of the node", async () => {
    const { bystander, pack } = await greedyPack("open_files = 64");
    await using _ = bystander;
    const before = await pidOf(pack);
    const error = await rejectionOf(pack.call("Open", { count: 100 }));
    expect([error.code, error.details.exception?.types[0]]).toEqual(["remote_exception", "builtins:OSError"]);
    expect(error.message).toContain("Too many open files");
    expect(await pidOf(pack)).toBe(before);
  });
});

test("limits are the process's from its start, and no worker leaves a core file", async () => {
  const { bystander, pack } = await greedyPack("open_files = 64\ncpus = 1");
  await using _ = bystander;
  const [files, core, cpus] = [...((await pack.call("Tell")) as Iterable<unknown>)];
  expect([[...(files as Iterable<number>)], core]).toEqual([[64, 64], 0]);
  const status = bystander.server.status().packs.find(({ name }) => name === "greedy");
  const means = status?.limits.find(({ name }) => name === "cpus");
  if (means?.how.startsWith("CPU affinity")) expect(cpus).toBe(1);
});

describe("call_timeout", () => {
  test("ends a call that brings no deadline, or a longer one, and says where it is set", async () => {
    const { bystander, pack, folder } = await greedyPack("call_timeout = 1");
    await using _ = bystander;
    await pidOf(pack);
    for (const options of [{}, { deadlineMs: 60_000 }]) {
      const error = await rejectionOf(pack.call("Sleep", { seconds: 2 }, options));
      expect(error.code).toBe("deadline_exceeded");
      const where = `tool.comfy.isolation.limits.call_timeout in ${join(folder, "pyproject.toml")}`;
      expect(error.message).toBe(`pack greedy: the call took longer than the pack's limit of 1000 ms (${where})`);
      expect(error.details.hint).toStartWith(`raise ${where}; a worker that goes on`);
    }
    await bystander.isUndisturbed();
  });

  test("gives way to a caller's shorter deadline", async () => {
    const { bystander, pack } = await greedyPack("call_timeout = 60");
    await using _ = bystander;
    await pidOf(pack);
    const error = await rejectionOf(pack.call("Sleep", { seconds: 1 }, { deadlineMs: 100 }));
    expect(error.message).toBe("pack greedy: the call took longer than its deadline of 100 ms");
  });
});

describe("the server's own limits", () => {
  test("hold for packs that do not say, and cap those that do, which opening tells", async () => {
    const packLimits = { defaults: { open_files: 100 }, max: { memory: "200MiB" } };
    const { bystander, pack } = await greedyPack('memory = "64GiB"', { packLimits });
    await using _ = bystander;
    expect(pack.warnings).toContainEqual(expect.stringMatching(/asks for 64 GiB; the server allows 200 MiB/));
    const status = bystander.server.status().packs.find(({ name }) => name === "greedy");
    expect(status?.limits.map(({ name, value, enforced }) => [name, value, enforced])).toEqual([
      ["memory", "200 MiB", true],
      ["open_files", "100 open files", true],
    ]);
    const error = await rejectionOf(pack.call("Allocate", { size: 400 * 2 ** 20 }));
    expect(error.details.hint).toContain("the server's maximum memory");
  });

  test("are options of the command, too", async () => {
    const options = ["--limit", "memory=1.5GiB", "--limit", "call_timeout=30", "--limit-max", "memory=1GiB"];
    const server = await startServer(world, options);
    await using airlock = await connect({ socket: world.socket });
    await airlock.open(join(packs, "greedy"));
    const [status] = (await airlock.status()).packs;
    expect(status?.limits.map(({ value, source }) => [value, source])).toEqual([
      ["30 s", "the server's default call_timeout"],
      ["1 GiB", "the server's maximum memory"],
    ]);
    server.kill("SIGTERM");
    expect(await server.exited).toBe(0);
  });

  test("that make no sense keep it from starting, by name", async () => {
    const error = await rejectionOf(world.serve({ packLimits: { defaults: { memory: "much" } } }));
    expect([error.code, error.message]).toEqual([
      "bad_request",
      'the limits for packs: packLimits.defaults.memory must be bytes or a text such as "8GiB", not "much"',
    ]);
  });
});
