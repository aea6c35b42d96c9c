/** What a process takes of this machine's memory, as the kernel tells. */
import { readFile } from "node:fs/promises";

/** Bytes that would be free without the process (PSS); null where it is gone, or the kernel does not say. */
export async function pssOf(pid: number): Promise<number | null> {
  try {
    return parsePss(await readFile(`/proc/${pid}/smaps_rollup`, "utf8"));
  } catch {
    return null;
  }
}

/** The sum in a text such as `/proc/PID/smaps_rollup`. */
export function parsePss(text: string): number | null {
  const kibibytes = /^Pss:\s+(\d+) kB$/m.exec(text)?.[1];
  return kibibytes === undefined ? null : Number(kibibytes) * 1024;
}
