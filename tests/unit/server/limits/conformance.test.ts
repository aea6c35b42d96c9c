/**
 * What every mechanism that holds a worker's memory and processes promises: one list of cases, over a kernel in memory, for
 * each of them by itself and for the confiner that chooses.
 */
import { describe, expect, test } from "bun:test";
import type { ProcessExit } from "../../../../src/server/workers/exit.ts";
import { Cgroups } from "../../../../src/server/workers/limits/cgroups.ts";
import { Confiner, lookMs } from "../../../../src/server/workers/limits/confiner.ts";
import type { Mechanism } from "../../../../src/server/workers/limits/mechanism.ts";
import { ProcessAttributes } from "../../../../src/server/workers/limits/process-attributes.ts";
import type { ResourceLimits } from "../../../../src/server/workers/limits/resource-limits.ts";
import { Watch } from "../../../../src/server/workers/limits/watch.ts";
import type { WorkerProcess } from "../../../../src/server/workers/worker-process.ts";
import { ManualClock } from "../../../../src/transport/clock.ts";
import { FakeKernel, type FakeKernelOptions, pageBytes } from "../../../support/fake-kernel.ts";
import { manifestOf, settled } from "../../../support/peers.ts";

function workerProcess(pid: number, exited: Promise<ProcessExit>, kill = (): void => undefined): WorkerProcess {
  return { pid, exited, kill, crashStack: undefined, dumpStacks: async () => "" };
}

const MiB = 2 ** 20;
const serverPid = 50;

const allControllers = ["cpuset", "cpu", "memory", "pids"];

const worlds: readonly (readonly [string, FakeKernelOptions, memory: RegExp])[] = [
  ["a cgroup", { controllers: allControllers }, /^memory 100 MiB of 100 MiB, and asked for more \(cgroup\)$/],
  ["a look at PSS", {}, /^memory 150 MiB of 100 MiB \(PSS of 1 process\)$/],
  ["a look at RSS, where there is no PSS", { tellsPss: false }, /^memory 150 MiB of 100 MiB \(RSS of 1 process\)$/],
  [
    "a cgroup that lacks memory, and a look",
    { controllers: ["pids"] },
    /^memory 150 MiB of 100 MiB \(PSS of 1 process\)$/,
  ],
];

const limits: ResourceLimits = {
  memory: { value: 100 * MiB, source: "limits.memory" },
  processes: { value: 2, source: "limits.processes" },
};

function newWorld(options: FakeKernelOptions) {
  const clock = new ManualClock();
  const kernel = new FakeKernel(serverPid, options);
  const mechanisms: Mechanism[] = [
    new Cgroups({ kernel, clock, pid: serverPid }),
    new Watch({ kernel, pageBytes, lookMs }),
  ];
  const confiner = new Confiner({ mechanisms, clock, policy: { defaults: {}, max: {} } });
  /** A worker in the confiner's charge, whose process ends as the kernel says. */
  const start = (given: ResourceLimits = limits) => {
    const pid = kernel.spawn();
    const { promise, resolve } = Promise.withResolvers<ProcessExit>();
    const kill = () => kernel.killGroup(pid);
    const confined = confiner.confine(workerProcess(pid, promise, kill), given);
    let exit: ProcessExit | undefined;
    void confined.exited.then((settledExit) => {
      exit = settledExit;
    });
    return {
      pid,
      /** Reaps it, where it has ended, and lets what follows happen. */
      async reap(): Promise<ProcessExit | undefined> {
        if (!kernel.isAlive(pid)) resolve({ code: null, signal: "SIGKILL" });
        for (let turn = 0; turn < 3; turn++) {
          await settled();
          clock.advance(50);
        }
        return exit;
      },
    };
  };
  const look = async () => {
    clock.advance(lookMs);
    await settled();
  };
  return { clock, kernel, confiner, start, look };
}

describe.each(worlds)("a worker held by %s", (_, options, memory) => {
  test("is ended for its memory, and its exit says how much of how much, and where that is set", async () => {
    const { kernel, start, look } = newWorld(options);
    const worker = start();
    kernel.allocate(worker.pid, 150 * MiB);
    await look();
    expect(kernel.isAlive(worker.pid)).toBe(false);
    const exit = await worker.reap();
    expect(exit?.exceeded?.what).toMatch(memory);
    expect(exit?.exceeded?.source).toBe("limits.memory");
  });

  test("is ended for the number of its processes, with all of them, also those that have left its group", async () => {
    const { kernel, start, look } = newWorld(options);
    const worker = start();
    const children = [kernel.fork(worker.pid), kernel.fork(worker.pid)];
    kernel.change(children[0] ?? 0, { group: children[0] ?? 0, session: children[0] ?? 0 });
    await look();
    expect([worker.pid, ...children].filter((pid) => kernel.isAlive(pid))).toEqual([]);
    expect((await worker.reap())?.exceeded).toEqual({ what: "processes 3 of 2", source: "limits.processes" });
  });

  test("lives on at its limits, and what its processes share counts once", async () => {
    const { kernel, start, look } = newWorld({ ...options, tellsPss: true });
    const worker = start();
    kernel.allocate(worker.pid, 100 * MiB);
    kernel.fork(worker.pid);
    for (let round = 0; round < 3; round++) await look();
    expect(kernel.isAlive(worker.pid)).toBe(true);
  });

  test("is ended for its own excess alone", async () => {
    const { kernel, start, look } = newWorld(options);
    const [greedy, modest] = [start(), start()];
    kernel.allocate(modest.pid, 50 * MiB);
    kernel.allocate(greedy.pid, 150 * MiB);
    await look();
    await greedy.reap();
    expect([kernel.isAlive(greedy.pid), kernel.isAlive(modest.pid)]).toEqual([false, true]);
  });

  test("that ends by itself exceeded nothing", async () => {
    const { kernel, start, look } = newWorld(options);
    const worker = start();
    await look();
    kernel.kill(worker.pid);
    expect(await worker.reap()).toEqual({ code: null, signal: "SIGKILL" });
  });

  test("leaves nothing: no cgroup, and nobody looks any more", async () => {
    const { clock, kernel, confiner, start, look } = newWorld(options);
    const before = kernel.cgroups;
    const workers = [start(), start()];
    await look();
    for (const worker of workers) kernel.kill(worker.pid);
    for (const worker of workers) await worker.reap();
    expect(kernel.cgroups).toEqual(before);
    const { looks } = kernel;
    clock.advance(10 * lookMs);
    await settled();
    expect(kernel.looks).toBe(looks);
    confiner.close();
    expect(kernel.cgroups).toEqual([]);
  });

  test("has its limits described, each with how it is held", () => {
    const { confiner } = newWorld(options);
    const described = confiner.describe(limits);
    expect(described.map(({ name, value, source, enforced }) => [name, value, source, enforced])).toEqual([
      ["memory", "100 MiB", "limits.memory", true],
      ["processes", "2 processes", "limits.processes", true],
    ]);
    for (const { how } of described)
      expect(how).toMatch(/cgroup v2|looked at every 0.25 s; (?:no cgroup|the server's)/);
  });
});

test("a limit that nothing can hold is warned of, with the reasons, and the others are held", () => {
  const { clock, kernel } = newWorld({});
  const mechanisms = [
    new Cgroups({ kernel, clock, pid: serverPid }),
    new ProcessAttributes({ libc: { limitOpenFiles: () => undefined, setAffinity: () => undefined }, cpus: [0] }),
  ];
  const confiner = new Confiner({ mechanisms, clock, policy: { defaults: { open_files: 64 }, max: {} } });
  const asked = {
    ...manifestOf("blur"),
    limits: { cpus: { value: 0.5, source: "limits.cpus in /p" } },
    warnings: ["own"],
  };
  const { warnings, limits: resolved } = confiner.resolve(asked);
  expect(warnings).toEqual([
    "own",
    "limits.cpus in /p (0.5 CPUs) is not enforced: no cgroup: this system has no cgroup v2; only whole CPUs can be given, and the server has 1 CPU",
  ]);
  expect(confiner.describe(resolved).map(({ name, enforced }) => [name, enforced])).toEqual([
    ["open_files", true],
    ["cpus", false],
  ]);
});

test("a worker without limits is not looked at, and is the process that it was", () => {
  const { confiner } = newWorld({});
  const process = workerProcess(7, Promise.resolve({ code: 0, signal: null }));
  expect(confiner.confine(process, { call_timeout: { value: 1, source: "" } })).toBe(process);
});

test("a cgroup that the kernel refuses leaves the worker to be looked at, which is said from then on", async () => {
  const { kernel, confiner, start, look } = newWorld({ controllers: allControllers });
  kernel.refused.set("memory.max", "EPERM");
  const worker = start();
  kernel.allocate(worker.pid, 150 * MiB);
  await look();
  expect((await worker.reap())?.exceeded?.what).toBe("memory 150 MiB of 100 MiB (PSS of 1 process)");
  expect(confiner.describe(limits)[0]?.how).toContain("no cgroup: EPERM");
  expect(kernel.cgroups).toEqual(["/own/airlock-50-server"]);
});

test("a process that has ended before it is confined is no failure of the cgroup's", async () => {
  const { kernel, confiner } = newWorld({ controllers: allControllers });
  const gone = workerProcess(4711, Promise.resolve({ code: 1, signal: null }));
  expect(await confiner.confine(gone, limits).exited).toEqual({ code: 1, signal: null });
  expect(confiner.describe(limits)[0]?.how).toBe("cgroup v2, memory.max");
  expect(kernel.cgroups).toEqual(["/own/airlock-50-server"]);
});
