import { describe, expect, test } from "bun:test";
import { type FingerprintInput, fingerprint } from "../../../src/server/environments/fingerprint.ts";

const base: FingerprintInput = {
  implementation: "cpython",
  version: "3.12.4",
  platform: "linux-x86_64-glibc",
  requirements: ["six==1.16.0", "numpy>=1.26,<3"],
};

test("the key is 20 hexadecimal digits", () => {
  expect(fingerprint(base)).toMatch(/^[0-9a-f]{20}$/);
});

test("the key stays the same from one release of Airlock to the next", () => {
  // A change here makes every user's environments anew: raise environmentFormat on purpose or not at all.
  expect(fingerprint(base)).toBe("8df64f5663c07a294691");
});

describe("the key does not depend on", () => {
  test.each([
    ["order", ["numpy>=1.26,<3", "six==1.16.0"]],
    ["spacing", [" six == 1.16.0 ", "numpy >=1.26, <3"]],
    ["the case of names", ["SIX==1.16.0", "NumPy>=1.26,<3"]],
    ["repetition", ["six==1.16.0", "six == 1.16.0", "numpy>=1.26,<3"]],
  ])("%s", (_what, requirements) => {
    expect(fingerprint({ ...base, requirements })).toBe(fingerprint(base));
  });
});

describe("another key comes of another", () => {
  test.each<[string, Partial<FingerprintInput>]>([
    ["implementation", { implementation: "cpythont" }],
    ["patch version", { version: "3.12.5" }],
    ["C library", { platform: "linux-x86_64-musl" }],
    ["requirement", { requirements: ["six==1.17.0", "numpy>=1.26,<3"] }],
    ["number of requirements", { requirements: ["six==1.16.0"] }],
    ["torch", { torchVersion: "2.13.0" }],
  ])("%s", (_what, change) => {
    expect(fingerprint({ ...base, ...change })).not.toBe(fingerprint(base));
  });
});
