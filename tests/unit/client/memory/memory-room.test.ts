import { expect, test } from "bun:test";
import { machineBytes, memoryRoom } from "../../../../src/client/memory/memory-room.ts";

const machine = "MemTotal:       16000 kB\nMemFree:  100 kB\nMemAvailable:    9000 kB\n";

function roomOf(files: Record<string, string>) {
  return memoryRoom((path) => files[path]);
}

test("the machine's own memory bounds where nothing else does", () => {
  expect(roomOf({ "/proc/meminfo": machine })).toEqual({ bytes: 9000 * 1024, of: "the machine" });
  expect(machineBytes((path) => (path === "/proc/meminfo" ? machine : undefined))).toBe(16_000 * 1024);
  expect(roomOf({}).bytes).toBe(Number.POSITIVE_INFINITY);
});

test("the tightest group on the way up bounds, less what the kernel can take back", () => {
  const files = {
    "/proc/meminfo": machine,
    "/proc/self/cgroup": "0::/user/app\n",
    "/sys/fs/cgroup/user/app/memory.max": "max\n",
    "/sys/fs/cgroup/user/app/memory.current": "500\n",
    "/sys/fs/cgroup/user/memory.max": "10000\n",
    "/sys/fs/cgroup/user/memory.current": "9000\n",
    "/sys/fs/cgroup/user/memory.stat": "anon 7000\ninactive_file 1500\n",
  };
  expect(roomOf(files)).toEqual({ bytes: 2500, of: "the control group /user" });
});

test("in a container its outermost group bounds", () => {
  const files = {
    "/proc/self/cgroup": "0::/\n",
    "/sys/fs/cgroup/memory.max": "4096\n",
    "/sys/fs/cgroup/memory.current": "5000\n",
  };
  expect(roomOf(files)).toEqual({ bytes: 0, of: "the control group /" });
});

test("groups of version 1 bound by their own files, and other controllers don't", () => {
  const files = {
    "/proc/self/cgroup": "7:cpu:/a\n4:hugetlb,memory:/docker/x\n0::/\n",
    "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "9223372036854771712\n",
    "/sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes": "100\n",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes": "1000\n",
    "/sys/fs/cgroup/memory/memory.usage_in_bytes": "400\n",
    "/sys/fs/cgroup/memory/memory.stat": "total_inactive_file 100\n",
  };
  expect(roomOf(files)).toEqual({ bytes: 700, of: "the control group /" });
});
