import { expect, test } from "bun:test";
import { describeExit } from "../../../src/server/workers/exit.ts";

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
