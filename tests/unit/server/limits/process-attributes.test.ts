import { describe, expect, test } from "bun:test";
import { ProcessAttributes, parseCpuList } from "../../../../src/server/workers/limits/process-attributes.ts";

const limit = (value: number) => ({ value, source: "" });

function newAttributes(cpus: readonly number[]) {
  const files: [number, number][] = [];
  const affinities: (readonly number[])[] = [];
  const libc = {
    limitOpenFiles: (pid: number, count: number) => void files.push([pid, count]),
    setAffinity: (_: number, chosen: readonly number[]) => void affinities.push(chosen),
  };
  return { attributes: new ProcessAttributes({ libc, cpus }), files, affinities };
}

test("open files are the process's own limit", () => {
  const { attributes, files, affinities } = newAttributes([0, 1]);
  expect(attributes.means("open_files", 64)?.isEnforced).toBe(true);
  attributes.confine(7, { open_files: limit(64) });
  expect([files, affinities]).toEqual([[[7, 64]], []]);
});

describe("CPUs without a cgroup", () => {
  test("are whole ones of the server's, spread over its workers", () => {
    const { attributes, affinities } = newAttributes([0, 2, 4, 6]);
    for (const cpus of [1.5, 1, 2]) attributes.confine(7, { cpus: limit(cpus) });
    expect(affinities).toEqual([[0, 2], [4], [6, 0]]);
  });

  test.each([
    [1.5, 4, { isEnforced: true, how: "CPU affinity: approximate, it runs on 2 of 4" }],
    [4, 4, { isEnforced: true, how: "there are only 4" }],
    [1.5, 2, { isEnforced: false, how: "only whole CPUs can be given, and the server has 2 CPUs" }],
    [0.5, 1, { isEnforced: false, how: "only whole CPUs can be given, and the server has 1 CPU" }],
  ])("%d of %d", (value, there, means) => {
    const { attributes } = newAttributes(Array.from({ length: there }, (_, index) => index));
    expect(attributes.means("cpus", value)).toEqual(means);
  });
});

test.each([
  ["0-3,8", [0, 1, 2, 3, 8]],
  ["5\n", [5]],
  ["", []],
])("the CPUs %j are %p", (list, cpus) => {
  expect(parseCpuList(list)).toEqual(cpus);
});
