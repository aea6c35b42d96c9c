/** Scenarios that need a GPU. They are listed so that nobody looks for them in vain; each says why it is skipped. */
import type { Scenario } from "../scenario.ts";

const skipped = (name: string, describe: string): Scenario => ({
  name,
  group: "GPU",
  describe,
  rounds: 1,
  bases: [],
  plan: () =>
    Promise.resolve({
      turns: [],
      notes: [`skipped: tensors on a GPU go by the CPU yet; ${name} is measured once they are shared there`],
    }),
});

export const gpu: readonly Scenario[] = [
  skipped("gpu-images", "`1.0 - image` of CUDA tensors there and back, from one CUDA pool"),
  skipped("gpu-sizes", "CUDA tensors of 64 KiB to 4 GiB to a worker and back"),
  skipped("gpu-first", "the first CUDA tensor of a worker: context, import of the pool, first kernel"),
];
