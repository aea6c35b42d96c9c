/**
 * The confiner of a server on this machine: which mechanisms there are, in their order.
 */
import type { Clock } from "../../../transport/clock.ts";
import type { Libc } from "../../../transport/libc.ts";
import { Cgroups } from "./cgroups.ts";
import { Confiner, lookMs } from "./confiner.ts";
import { systemKernel, tryRead } from "./kernel.ts";
import { ProcessAttributes, parseCpuList } from "./process-attributes.ts";
import type { LimitPolicy } from "./resource-limits.ts";
import { Watch } from "./watch.ts";

/** Makes a cgroup for workers where this process has one of its own; what the kernel holds comes before what is looked at. */
export function systemConfiner(libc: Libc, clock: Clock, policy: LimitPolicy): Confiner {
  const kernel = systemKernel;
  const [, cpuList = "0"] = /^Cpus_allowed_list:\s*(.*)$/m.exec(tryRead(kernel, "/proc/self/status") ?? "") ?? [];
  return new Confiner({
    clock,
    policy,
    mechanisms: [
      new Cgroups({ kernel, clock, pid: process.pid }),
      new Watch({ kernel, pageBytes: libc.pageBytes(), lookMs }),
      new ProcessAttributes({ libc, cpus: parseCpuList(cpuList) }),
    ],
  });
}
