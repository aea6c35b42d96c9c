/**
 * How many processes the kernel has ended for want of memory: a worker's SIGKILL in between was probably one of them.
 *
 * The kernel does not say which. It counts for the control group, if that is to be seen from here, else for the machine.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** The count by now; undefined where this system has none. Only two counts of one process can be compared. */
export type CountMemoryKills = () => number | undefined;

const cgroupRoot = "/sys/fs/cgroup";

export function countMemoryKills(
  read: (path: string) => string = (path) => readFileSync(path, "utf8"),
): CountMemoryKills {
  const countIn = (path: string): number | undefined => {
    try {
      const found = /^oom_kill (\d+)$/m.exec(read(path))?.[1];
      return found === undefined ? undefined : Number(found);
    } catch {
      return undefined;
    }
  };
  return () => {
    let group: string | undefined;
    try {
      group = /^0::(.*)$/m.exec(read("/proc/self/cgroup"))?.[1];
    } catch {
      // No control groups: the machine's count is left.
    }
    const ofGroup = group === undefined ? undefined : countIn(join(cgroupRoot, group, "memory.events"));
    return ofGroup ?? countIn("/proc/vmstat");
  };
}
