import { expect, test } from "bun:test";
import { Watch } from "../../../../src/server/workers/limits/watch.ts";
import { FakeKernel, pageBytes } from "../../../support/fake-kernel.ts";

const MiB = 2 ** 20;

/** A watched worker with a limit of 100 MiB. */
function newWatch() {
  const kernel = new FakeKernel(50);
  const watch = new Watch({ kernel, pageBytes, lookMs: 250 });
  const worker = kernel.spawn();
  const confinement = watch.confine(worker, { memory: { value: 100 * MiB, source: "limits.memory" } });
  const looks = async (times: number) => {
    const before = kernel.counts;
    for (let each = 0; each < times; each++) await watch.look();
    return kernel.counts - before;
  };
  return { kernel, worker, confinement, looks };
}

test("the kernel is asked to count PSS only where RSS alone is over the limit", async () => {
  const { kernel, worker, looks } = newWatch();
  kernel.allocate(worker, 100 * MiB);
  expect(await looks(20)).toBe(0);
});

test("what was counted below the limit is counted again in a while, and at once where RSS has grown", async () => {
  const { kernel, worker, confinement, looks } = newWatch();
  kernel.allocate(worker, 90 * MiB);
  const child = kernel.fork(worker);
  expect(await looks(16)).toBe(4);
  kernel.change(child, { sharedBytes: 70 * MiB });
  await looks(8);
  expect(confinement.exceeded?.what).toBe("memory 110 MiB of 100 MiB (PSS of 2 processes)");

  const grown = newWatch();
  grown.kernel.allocate(grown.worker, 90 * MiB);
  grown.kernel.fork(grown.worker);
  await grown.looks(1);
  grown.kernel.allocate(grown.worker, 20 * MiB);
  await grown.looks(1);
  expect(grown.confinement.exceeded?.what).toBe("memory 110 MiB of 100 MiB (PSS of 2 processes)");
});

test("a process that ends between the two looks at it counts as nothing", async () => {
  const { kernel, worker, confinement, looks } = newWatch();
  kernel.allocate(worker, 60 * MiB);
  const child = kernel.spawn({ parent: worker, bytes: 60 * MiB });
  const readLater = kernel.readLater.bind(kernel);
  kernel.readLater = (path) => {
    kernel.kill(child);
    return readLater(path);
  };
  await looks(1);
  expect(confinement.exceeded).toBeUndefined();
});
