/** The kernel that there is, where a test may ask it: its own processes, and a cgroup that it makes and removes. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { WorkerCgroup } from "../../../../src/server/workers/limits/cgroups.ts";
import { numberAfter, systemKernel } from "../../../../src/server/workers/limits/kernel.ts";
import { parseStat } from "../../../../src/server/workers/limits/process-table.ts";
import { systemClock } from "../../../../src/transport/clock.ts";
import { newCgroupPath } from "../../../support/cgroups.ts";
import { until } from "../../../support/until.ts";

test("tells of this process what the limits are about", async () => {
  const entry = parseStat(systemKernel.read(`/proc/${process.pid}/stat`));
  expect([entry?.pid, entry?.parent]).toEqual([process.pid, process.ppid]);
  expect(entry?.residentPages).toBeGreaterThan(1000);
  const rollup = await systemKernel.readLater("/proc/self/smaps_rollup");
  const [pss = 0, rss = 0] = ["Pss", "Rss"].map((key) => numberAfter(rollup, key));
  expect(pss).toBeGreaterThan(1000);
  expect(pss).toBeLessThanOrEqual(rss);
});

test("makes no file where it has none of the name", () => {
  expect(() => systemKernel.write(join(import.meta.dir, "no-such-file"), "1")).toThrow("ENOENT");
});

test.each([
  ["oom_kill 3\n", 3],
  ["low 0\noom_kill 12\noom_group_kill 1\n", 12],
  ["oom_group_kill 1\n", undefined],
  ["", undefined],
])("a number is found by its whole key: %j", (text, number) => {
  expect(numberAfter(text, "oom_kill")).toBe(number);
});

const folder = newCgroupPath();

// Skipped where this user may make no cgroup: outside of a delegated one, and in most containers.
test.skipIf(folder === undefined)("ends all of a cgroup with its worker, also a daemon, and removes it", async () => {
  const cgroup = folder ?? "";
  const confinement = new WorkerCgroup(systemKernel, systemClock, cgroup, {}, () => undefined);
  const child = Bun.spawn(["sh", "-c", "read go; setsid sleep 600 & echo $!; sleep 600"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  confinement.take(child.pid);
  child.stdin.write("go\n");
  child.stdin.end();
  const { value } = await child.stdout.getReader().read();
  const daemon = Number(new TextDecoder().decode(value));
  await until(() => systemKernel.read(join(cgroup, "cgroup.procs")).includes(String(daemon)), "the daemon is in it");
  expect(await confinement.end()).toBeUndefined();
  expect(() => systemKernel.list(cgroup)).toThrow("ENOENT");
  expect(await child.exited).not.toBe(0);
});
