/** A server in a cgroup of its own, where one can be made: the kernel holds its workers, and nothing of it is left. */
import { afterAll, expect, test } from "bun:test";
import { readdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { connect } from "../../src/index.ts";
import { makeLimitedCgroup } from "../support/cgroups.ts";
import { rejectionOf } from "../support/errors.ts";
import { startServer } from "./processes.ts";
import { packs, until, useWorld } from "./support.ts";

const world = useWorld();
const cgroup = makeLimitedCgroup();

afterAll(() => {
  if (cgroup !== undefined) rmdirSync(cgroup);
});

// Skipped where this user can make no cgroup with memory and pids: that takes one that is delegated, and not version 1.
test.skipIf(cgroup === undefined)("a worker over its memory is ended by the kernel, and its caller told", async () => {
  const own = cgroup ?? "";
  const server = await startServer(world, ["--limit", "memory=200MiB", "--limit", "processes=4"], own);
  const airlock = await connect({ socket: world.socket });
  const pack = await airlock.open(join(packs, "greedy"));
  const before = await pack.describe();
  const { packs: open } = await airlock.status();
  expect(open[0]?.limits.map(({ how }) => how)).toEqual(["cgroup v2, memory.max", "cgroup v2, its processes counted"]);
  const error = await rejectionOf(pack.call("Allocate", { size: 400 * 2 ** 20 }));
  expect(error.message).toMatch(/was ended: memory .* of 200 MiB, and asked for more \(cgroup\)$/);
  expect((await pack.describe()).pid).not.toBe(before.pid);
  await airlock.close();
  server.kill("SIGTERM");
  await server.exited;
  expect(readdirSync(own).filter((name) => name.startsWith("airlock-"))).toEqual([]);
  await until(() => readFileSync(join(own, "cgroup.events"), "utf8").includes("populated 0"), "nobody is in it");
});
