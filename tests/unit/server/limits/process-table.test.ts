import { describe, expect, test } from "bun:test";
import { ProcessTable, parseStat } from "../../../../src/server/workers/limits/process-table.ts";
import { FakeKernel } from "../../../support/fake-kernel.ts";

describe("/proc/PID/stat", () => {
  test("is read, also where the name holds parentheses and blanks", () => {
    const text =
      "21683 (python3 (a) b) S 21600 21683 21680 0 -1 4194304 2841 0 0 0 7 2 0 0 20 0 2 0 3664 30269440 3391 18446744073709551615 1 1 0 0 0\n";
    expect(parseStat(text)).toEqual({
      pid: 21683,
      parent: 21600,
      group: 21683,
      session: 21680,
      residentPages: 3391,
      isZombie: false,
    });
  });

  test("of a process that waits to be reaped says so", () => {
    expect(parseStat(`7 (sh) Z 1 7 7 ${"0 ".repeat(30)}`)?.isZombie).toBe(true);
  });

  test.each(["", "7", "no process", "7 (sh) S"])("that is none is nothing: %j", (text) => {
    expect(parseStat(text)).toBeUndefined();
  });
});

describe("the processes of a worker", () => {
  const pidsOf = (table: ProcessTable, ...workers: number[]) =>
    workers.map((worker) =>
      table
        .processesOf(new Set(workers))
        .get(worker)
        ?.map(({ pid }) => pid),
    );

  test("are its group, its session, and their descendants whatever their numbers", () => {
    const kernel = new FakeKernel(50);
    const table = new ProcessTable(kernel);
    const [worker, other] = [kernel.spawn(), kernel.spawn()];
    const child = kernel.fork(worker);
    const inSession = kernel.spawn({ parent: 1, session: worker });
    const inGroup = kernel.spawn({ parent: 1, group: worker });
    const daemon = kernel.spawn({ parent: child });
    const early = kernel.spawn({ pid: 60, parent: daemon });
    expect(pidsOf(table, worker, other)).toEqual([[worker, child, inSession, inGroup, daemon, early], [other]]);
  });

  test("stay its own when their parents have ended, once they were seen", () => {
    const kernel = new FakeKernel(50);
    const table = new ProcessTable(kernel);
    const worker = kernel.spawn();
    const daemon = kernel.spawn({ parent: worker });
    table.processesOf(new Set([worker]));
    const grandchild = kernel.spawn({ parent: daemon });
    kernel.kill(daemon);
    kernel.change(grandchild, { session: daemon });
    expect(pidsOf(table, worker)).toEqual([[worker, grandchild]]);
  });

  test("are looked for among those that are new, not among strangers of before", () => {
    const kernel = new FakeKernel(50);
    const table = new ProcessTable(kernel);
    for (let stranger = 0; stranger < 20; stranger++) kernel.spawn();
    const worker = kernel.spawn();
    table.processesOf(new Set([worker]));
    const { looks } = kernel;
    expect(pidsOf(table, worker)).toEqual([[worker]]);
    expect(kernel.looks - looks).toBeLessThan(5);
  });

  test.each([
    ["that was seen to have ended", 1],
    ["that has ended since, in a while", 64],
  ])("are found again under the number of a stranger %s", (_, rounds) => {
    const kernel = new FakeKernel(50);
    const table = new ProcessTable(kernel);
    const [worker, stranger] = [kernel.spawn(), kernel.spawn()];
    table.processesOf(new Set([worker]));
    kernel.kill(stranger);
    if (rounds === 1) table.processesOf(new Set([worker]));
    kernel.spawn({ pid: stranger, parent: worker });
    for (let round = 1; round < rounds; round++) table.processesOf(new Set([worker]));
    expect(pidsOf(table, worker)).toEqual([[worker, stranger]]);
  });
});
