import { describe, expect, test } from "bun:test";
import {
  cgroupPath,
  enterOwnCgroup,
  leaveOwnCgroup,
  NoCgroup,
} from "../../../../src/server/workers/limits/own-cgroup.ts";
import { FakeKernel } from "../../../support/fake-kernel.ts";

const serverPid = 50;

function messageOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof NoCgroup) return error.message;
    throw error;
  }
  throw new Error("it found a cgroup");
}

describe("the path of the server's cgroup", () => {
  const unified =
    "26 23 0:22 / /proc rw - proc proc rw\n35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

  test.each([
    [
      "of a scope in a user's session",
      "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-u5.scope\n",
      unified,
      "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/run-u5.scope",
    ],
    ["of a container with a namespace of its own", "0::/\n", unified, "/sys/fs/cgroup"],
    [
      "beside version 1",
      "4:memory:/job\n1:cpu:/\n0::/job\n",
      "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
      "/sys/fs/cgroup/unified/job",
    ],
    [
      "of which a part is mounted, under a name with a blank",
      "0::/docker/abc/job\n",
      "41 31 0:38 /docker/abc /mnt/c\\040g rw - cgroup2 cgroup2 rw\n",
      "/mnt/c g/job",
    ],
  ])("%s", (_, membership, mounts, path) => {
    expect(cgroupPath(membership, mounts)).toBe(path);
  });

  test.each([
    ["version 1 alone", "4:memory:/job\n", unified, "this system has no cgroup v2"],
    ["no mount", "0::/job\n", "26 23 0:22 / /proc rw - proc proc rw\n", "the server's cgroup is not mounted here"],
    ["a cgroup outside of the namespace", "0::/../job\n", unified, "the server's cgroup is not mounted here"],
    [
      "another part that is mounted",
      "0::/docker/abcdef\n",
      "41 31 0:38 /docker/abc /mnt rw - cgroup2 cgroup2 rw\n",
      "the server's cgroup is not mounted here",
    ],
  ])("is refused with %s", (_, membership, mounts, reason) => {
    expect(messageOf(() => cgroupPath(membership, mounts))).toBe(reason);
  });
});

const newKernel = (controllers = ["cpu", "memory", "pids"]) => new FakeKernel(serverPid, { controllers });

describe("a cgroup of the server's own", () => {
  test("gets the controllers that there are, with the server in a leaf beside its workers", () => {
    const kernel = newKernel(["io", "memory", "pids"]);
    const own = enterOwnCgroup(kernel, serverPid);
    expect(own).toEqual({
      path: "/sys/fs/cgroup/own",
      prefix: "airlock-50-",
      controllers: new Set(["memory", "pids"]),
    });
    expect(kernel.read("/sys/fs/cgroup/own/airlock-50-server/cgroup.procs")).toBe("50");
    expect(kernel.read("/sys/fs/cgroup/own/cgroup.subtree_control")).toBe("memory pids");
  });

  test("is left as it was found", () => {
    const kernel = newKernel();
    leaveOwnCgroup(kernel, enterOwnCgroup(kernel, serverPid), serverPid);
    expect(kernel.cgroups).toEqual([]);
    expect(kernel.read("/sys/fs/cgroup/own/cgroup.procs")).toBe("50");
    expect(kernel.read("/sys/fs/cgroup/own/cgroup.subtree_control")).toBe("");
  });

  test("is shared by two servers of one process, and left by the last one", () => {
    const kernel = newKernel();
    const first = enterOwnCgroup(kernel, serverPid);
    const second = enterOwnCgroup(kernel, serverPid);
    expect(second).toEqual(first);
    kernel.makeFolder(`${first.path}/airlock-50-worker-1`);
    leaveOwnCgroup(kernel, first, serverPid);
    expect(kernel.cgroups).toEqual(["/own/airlock-50-server", "/own/airlock-50-worker-1"]);
    kernel.removeFolder(`${first.path}/airlock-50-worker-1`);
    leaveOwnCgroup(kernel, second, serverPid);
    expect(kernel.cgroups).toEqual([]);
  });

  test("is rid of what a dead server left, and of nothing else", () => {
    const kernel = newKernel();
    const alive = kernel.spawn({ cgroup: "" });
    const dead = ["airlock-49-server", "airlock-49-worker-3", "airlock-50-server", "airlock-50-worker-1"];
    for (const name of [...dead, `airlock-${alive}-worker-1`, "somebody-else"]) {
      kernel.makeFolder(`/sys/fs/cgroup/own/${name}`);
    }
    const orphan = kernel.spawn({ parent: 1, cgroup: "/own/airlock-49-worker-3" });
    enterOwnCgroup(kernel, serverPid);
    expect(kernel.cgroups).toEqual([`/own/airlock-${alive}-worker-1`, "/own/airlock-50-server", "/own/somebody-else"]);
    expect(kernel.isAlive(orphan)).toBe(false);
  });
});

describe("a cgroup is left alone", () => {
  const own = "the server's cgroup /sys/fs/cgroup/own";
  test.each<[string, (kernel: FakeKernel) => void, string]>([
    [
      "that holds other processes",
      (kernel) => kernel.spawn({ cgroup: "/own" }),
      `${own} holds other processes; a server started by "systemd-run --user --scope -p Delegate=yes" has its own`,
    ],
    [
      "that is the root",
      (kernel) => kernel.change(serverPid, { cgroup: "" }),
      "the server's cgroup /sys/fs/cgroup is the root of the hierarchy, which is the whole machine's",
    ],
    [
      "that is not the server's to divide",
      (kernel) => kernel.refused.set("mkdir", "EACCES"),
      `${own} is not delegated to it: EACCES: /sys/fs/cgroup/own/airlock-50-server`,
    ],
    [
      "that gives its children nothing",
      (kernel) => kernel.refused.set("cgroup.subtree_control", "EPERM"),
      `${own} gives its children no controller: memory: EPERM: /sys/fs/cgroup/own/cgroup.subtree_control`,
    ],
  ])("%s", (_, arrange, reason) => {
    const kernel = newKernel();
    arrange(kernel);
    expect(messageOf(() => enterOwnCgroup(kernel, serverPid))).toStartWith(reason);
    expect(kernel.cgroups).toEqual([]);
  });

  test("that offers no controller for a limit", () => {
    expect(messageOf(() => enterOwnCgroup(newKernel(["io"]), serverPid))).toBe(
      `${own} offers neither memory nor pids nor cpu`,
    );
  });
});
