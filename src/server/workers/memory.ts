/** What a process takes of this machine's memory, as the kernel tells. */
import { type Kernel, numberAfter } from "./limits/kernel.ts";

/** Bytes that would be free without the process (PSS); undefined where it is gone, or the kernel does not say. */
export async function pssOf(kernel: Kernel, pid: number): Promise<number | undefined> {
  const rollup = await kernel.readLater(`/proc/${pid}/smaps_rollup`).catch(() => undefined);
  const kibibytes = rollup === undefined ? undefined : numberAfter(rollup, "Pss");
  return kibibytes === undefined ? undefined : kibibytes * 1024;
}
