import { expect, test } from "bun:test";
import { parsePss, pssOf } from "../../../src/server/workers/memory.ts";

test("the sum is read out of the kernel's text, and nothing out of another", () => {
  expect(parsePss("55d-7ff ---p 00:00 0 [rollup]\nRss:  2000 kB\nPss:       1234 kB\nPss_Dirty:  10 kB\n")).toBe(
    1_263_616,
  );
  expect([parsePss(""), parsePss("Pss_Anon: 5 kB\n")]).toEqual([null, null]);
});

test("a process that is gone has none", async () => {
  expect(await pssOf(0x7fff_ffff)).toBeNull();
});
