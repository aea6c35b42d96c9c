import { expect, test } from "bun:test";
import { describeExit, type Killer } from "../../../src/server/workers/exit.ts";

test.each([
  [0, null, "exit code 0"],
  [3, null, "exit code 3"],
  [128, null, "exit code 128"],
  [null, "SIGSEGV", "killed by SIGSEGV (segmentation fault)"],
  [139, null, "killed by SIGSEGV (segmentation fault)"],
  [134, null, "killed by SIGABRT (aborted by a native library)"],
  [137, null, "killed by SIGKILL (killed, by hand or because memory ran out)"],
  [null, "SIGTERM", "killed by SIGTERM"],
  [255, null, "exit code 255"],
  [null, null, "exit code unknown"],
])("code %p and signal %p read %p", (code, signal, words) => {
  expect(describeExit({ code, signal })).toBe(words);
});

test.each<[Killer, string]>([
  ["server", "killed by the server"],
  ["memory", "probably out of memory"],
  ["somebody", "killed by somebody"],
])("a SIGKILL of %s reads %s", (killer, words) => {
  expect(describeExit({ code: null, signal: "SIGKILL", killer })).toContain(words);
  // Nobody sends a segmentation fault.
  expect(describeExit({ code: null, signal: "SIGSEGV", killer })).toBe("killed by SIGSEGV (segmentation fault)");
});
