import { describe, expect, test } from "bun:test";
import { formatLimit, resolveLimits } from "../../../../src/server/workers/limits/resource-limits.ts";

const GiB = 2 ** 30;
const asked = (value: number) => ({ memory: { value, source: "limits.memory in /p/pyproject.toml" } });

describe("the limit that holds", () => {
  test("is the pack's own before the server's default", () => {
    const policy = { defaults: { memory: GiB, processes: 4 }, max: {} };
    expect(resolveLimits(asked(2 * GiB), policy)).toEqual({
      limits: { ...asked(2 * GiB), processes: { value: 4, source: "the server's default processes" } },
      warnings: [],
    });
  });

  test("is the server's maximum where the pack asks for more, which is said", () => {
    const { limits, warnings } = resolveLimits(asked(32 * GiB), { defaults: {}, max: { memory: 16 * GiB } });
    expect(limits.memory).toEqual({ value: 16 * GiB, source: "the server's maximum memory" });
    expect(warnings).toEqual([
      "limits.memory in /p/pyproject.toml asks for 32 GiB; the server allows 16 GiB, and that holds",
    ]);
  });

  test("is the server's maximum where nobody asks, and what the pack asks for up to it", () => {
    const policy = { defaults: { cpus: 8 }, max: { memory: GiB, cpus: 4 } };
    const { limits, warnings } = resolveLimits(asked(GiB), policy);
    expect([limits.memory?.source, limits.cpus?.value, warnings]).toEqual([asked(1).memory.source, 4, []]);
  });
});

test.each([
  ["call_timeout", 1500, "1.5 s"],
  ["memory", 8.3 * GiB, "8.3 GiB"],
  ["memory", 512e6, "488.3 MiB"],
  ["memory", 40 * 1024, "40 KiB"],
  ["memory", 12, "12 B"],
  ["processes", 1, "1 process"],
  ["processes", 8, "8 processes"],
  ["open_files", 256, "256 open files"],
  ["cpus", 1.5, "1.5 CPUs"],
  ["cpus", 1, "1 CPU"],
] as const)("%s of %d is %s", (name, value, text) => {
  expect(formatLimit(name, value)).toBe(text);
});
