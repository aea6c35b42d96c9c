import { expect, test } from "bun:test";
import { countMemoryKills } from "../../../src/server/workers/memory-kills.ts";

/** A kernel with these files. */
function kernel(files: Record<string, string>) {
  return (path: string): string => {
    const text = files[path];
    if (text === undefined) throw new Error(`ENOENT ${path}`);
    return text;
  };
}

const group = { "/proc/self/cgroup": "0::/user.slice/a\n" };
const events = "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n";

test.each<[string, Record<string, string>, number | undefined]>([
  [
    "the control group's",
    { ...group, "/sys/fs/cgroup/user.slice/a/memory.events": events, "/proc/vmstat": "oom_kill 9\n" },
    2,
  ],
  ["the machine's where the group's is not to be seen", { ...group, "/proc/vmstat": "nr_free 1\noom_kill 9\n" }, 9],
  [
    "the machine's under the old control groups",
    { "/proc/self/cgroup": "4:memory:/a\n", "/proc/vmstat": "oom_kill 9\n" },
    9,
  ],
  ["none where the kernel counts none", {}, undefined],
])("the count is %s", (_, files, expected) => {
  expect(countMemoryKills(kernel(files))()).toBe(expected);
});

test("this machine's kernel can be asked", () => {
  expect(countMemoryKills()()).toBeOneOf([undefined, expect.any(Number)]);
});
