/**
 * What it costs the server to look whether workers keep to their limits, where no cgroup holds them: one look at 1 and at 64
 * processes, and at one whose pages the kernel must count, because its RSS alone would be over the limit.
 */
import { systemKernel } from "../../src/server/workers/limits/kernel.ts";
import { Watch } from "../../src/server/workers/limits/watch.ts";
import { loadLibc } from "../../src/transport/libc.ts";
import type { Figure } from "../results.ts";
import type { PlanOptions, Scenario } from "../scenario.ts";
import { median } from "../statistics.ts";

const MiB = 2 ** 20;

const looks = 20;

export const limits: Scenario = {
  name: "limits",
  group: "server",
  describe: "one look at the memory and the processes of workers, where no cgroup holds them",
  rounds: 3,
  bases: [],
  plan: ({ smoke }: PlanOptions) => {
    const heldMiB = smoke ? 64 : 1024;
    const start = async () => ({
      figures: [
        await measure("1 worker", 1, 1),
        await measure("64 workers", 64, 1),
        await measure(`1 worker with ${heldMiB} MiB, its PSS asked for`, 1, heldMiB),
      ],
    });
    const strangers = systemKernel.list("/proc").filter((name) => /^\d+$/.test(name)).length;
    return Promise.resolve({
      turns: [{ contender: "airlock", condition: "free", start }],
      notes: [`besides ${strangers} other processes`],
    });
  },
};

/** @param heldMiB what each worker holds; past 1 MiB, its limit is below its RSS and above its PSS. */
async function measure(of: string, count: number, heldMiB: number): Promise<Figure> {
  // A child shares all that its parent holds: half the RSS of the two is their PSS.
  const source = `import os, sys
held = bytearray(b"x") * (${heldMiB} << 20)
if ${heldMiB} > 1: os.fork()
print(len(held), flush=True)
sys.stdin.read()`;
  const workers = Array.from({ length: count }, () =>
    Bun.spawn(["python3", "-c", source], { stdio: ["pipe", "pipe", "inherit"] }),
  );
  await Promise.all(workers.map(({ stdout }) => stdout.getReader().read()));
  try {
    const pageBytes = loadLibc().pageBytes();
    const memory = { value: heldMiB === 1 ? 2 ** 40 : heldMiB * 1.5 * MiB, source: "the benchmark" };
    const newWatch = () => {
      const watch = new Watch({ kernel: systemKernel, pageBytes, lookMs: 0 });
      const confined = workers.map(({ pid }) => watch.confine(pid, { memory, processes: { value: 8, source: "" } }));
      return { watch, confined };
    };
    const samples: number[] = [];
    let { watch, confined } = newWatch();
    // The first look is at every process there is.
    await watch.look();
    for (let look = 0; look < looks; look++) {
      // What was counted once is not counted again so soon.
      if (heldMiB > 1) ({ watch, confined } = newWatch());
      const startMs = performance.now();
      await watch.look();
      samples.push(performance.now() - startMs);
      if (confined.some(({ exceeded }) => exceeded !== undefined)) throw new Error("a worker was found over its limit");
    }
    return { of, statistic: "p50", unit: "ms", value: median(samples) };
  } finally {
    for (const worker of workers) worker.stdin.end();
    await Promise.all(workers.map(({ exited }) => exited));
  }
}
