/** What a benchmark asks of other processes. */
import { readFileSync } from "node:fs";

/** Whether a process runs; a zombie doesn't. */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}
