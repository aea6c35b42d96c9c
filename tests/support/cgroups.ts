/** The cgroup v2 that the tests run in, where they may make others in it. */
import { accessSync, constants, mkdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";

/** A name for a new cgroup; undefined where there is no cgroup v2, or none that this user may write to. */
export function newCgroupPath(): string | undefined {
  const [, mount] = /^\S+ \S+ \S+ \/ (\S+) .* - cgroup2 /m.exec(readFileSync("/proc/self/mountinfo", "utf8")) ?? [];
  const [, path] = /^0::(.*)$/m.exec(readFileSync("/proc/self/cgroup", "utf8")) ?? [];
  if (mount === undefined || path === undefined) return undefined;
  try {
    for (const each of ["", "cgroup.procs"]) accessSync(join(mount, path, each), constants.W_OK);
  } catch {
    return undefined;
  }
  return join(mount, path, `airlock-test-${process.pid}`);
}

/** Makes a cgroup with the controllers for memory and pids; undefined where there is none to be had. */
export function makeLimitedCgroup(): string | undefined {
  const path = newCgroupPath();
  if (path === undefined) return undefined;
  mkdirSync(path);
  const controllers = readFileSync(join(path, "cgroup.controllers"), "utf8").split(/\s/);
  if (["memory", "pids"].every((each) => controllers.includes(each))) return path;
  rmdirSync(path);
  return undefined;
}
