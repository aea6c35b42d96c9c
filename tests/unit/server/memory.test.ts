import { expect, test } from "bun:test";
import type { Kernel } from "../../../src/server/workers/limits/kernel.ts";
import { pssOf } from "../../../src/server/workers/memory.ts";

/** A kernel that says this of every process. */
function kernelThatSays(text: string): Kernel {
  return { readLater: async () => text } as Partial<Kernel> as Kernel;
}

test("the sum is read out of the kernel's text, and nothing out of another", async () => {
  const rollup = "55d-7ff ---p 00:00 0 [rollup]\nRss:  2000 kB\nPss:       1234 kB\nPss_Dirty:  10 kB\n";
  expect(await pssOf(kernelThatSays(rollup), 5)).toBe(1_263_616);
  for (const text of ["", "Pss_Anon: 5 kB\n"]) expect(await pssOf(kernelThatSays(text), 5)).toBeUndefined();
});

test("a process that is gone has none", async () => {
  const gone = { readLater: () => Promise.reject(new Error("ENOENT")) } as Partial<Kernel> as Kernel;
  expect(await pssOf(gone, 5)).toBeUndefined();
});
