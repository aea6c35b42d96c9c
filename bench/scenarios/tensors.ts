/** Scenarios of tensors. */
import type { Measurement } from "../results.ts";
import type { Goal, Scenario } from "../scenario.ts";
import { airlock, contended, inProcess, memcpy, stdoutJson } from "./contended.ts";

/** Of the sizes, those that tell most. */
const telling = new Set(["64 KiB", "1 MiB", "16 MiB", "256 MiB", "1 GiB", "4 GiB"]);

export const sizes: Scenario = contended({
  name: "sizes",
  group: "per GB",
  describe:
    "tensors of 64 KiB to 4 GiB to a worker (fresh, and the same again), back, and both; the first element is read",
  rounds: 3,
  withTorch: true,
  own: [airlock, stdoutJson, memcpy, inProcess],
  inSmoke: 2,
  bases: ["pyisolate", "one memcpy"],
  isShown: ({ of }: Measurement) => telling.has(of),
  plot: "lines",
});

export const chain: Scenario = contended({
  name: "chain",
  group: "per GB",
  describe: "a fresh tensor through three packs, one after the other, of which the last reads it",
  rounds: 3,
  withTorch: true,
  own: [airlock],
  bases: ["pyisolate"],
  plot: "lines",
});

export const shapes: Scenario = contended({
  name: "shapes",
  group: "per GB",
  describe: "an IMAGE, a LATENT and a CONDITIONING as ComfyUI has them, fresh, there and back",
  rounds: 3,
  withTorch: true,
  own: [airlock, stdoutJson, inProcess],
  inSmoke: 1,
  bases: ["pyisolate"],
});

const image = { contender: airlock.name, condition: "free" } as const;

export const images: Scenario = contended({
  name: "images",
  group: "per GB",
  describe: "`1.0 - image` there and back, and a GiB to one who reads its first element; beside the same in process",
  rounds: 3,
  withTorch: true,
  own: [airlock, inProcess],
  bases: ["pyisolate"],
  goals: [
    { ...image, of: "1 GiB in", statistic: "of a warm copy", atMost: 1.3 },
    { ...image, of: "16 MiB, 1.0 - image", statistic: "p50", base: { contender: "pyisolate" }, atMost: 0.3 },
    { ...image, of: "1 GiB, 1.0 - t", statistic: "p50", base: { contender: "pyisolate" }, atMost: 0.25 },
    { ...image, of: "1 GiB, 1.0 - t", statistic: "of in process", atMost: 1.5 },
  ],
});

const sentAgain = ["received", "received and looked at", "shared"];

export const again: Scenario = contended({
  name: "again",
  group: "per GB",
  describe: "a tensor that was received, passed on, and a shared one, sent again: in empty calls",
  rounds: 5,
  withTorch: true,
  own: [airlock],
  bases: [],
  goals: [
    ...["64 KiB", "1 MiB", "16 MiB"].flatMap((size) =>
      sentAgain.map((what): Goal => ({ ...image, of: `${size} ${what}`, statistic: "of an empty call", atMost: 1.5 })),
    ),
    ...sentAgain.map((what): Goal => ({ ...image, of: `1 GiB ${what}`, statistic: "p50", atMost: 15 })),
  ],
});

export const small: Scenario = contended({
  name: "small",
  group: "per GB",
  describe: "1,000 tensors of 1 KiB in one message, beside the same bytes in a list",
  rounds: 5,
  withTorch: true,
  own: [airlock],
  bases: [],
  goals: [{ ...image, of: "1,000 of 1 KiB", statistic: "tensors, of bytes", atMost: 3 }],
});

export const copies: Scenario = contended({
  name: "copies",
  group: "per GB",
  describe: "one copy in memory: by Airlock's threads, by one thread, by torch's",
  rounds: 3,
  withTorch: true,
  own: [airlock],
  bases: [],
});

export const mappings: Scenario = contended({
  name: "mappings",
  group: "per GB",
  describe:
    "a receipt's mapping of shared memory, made anew and used again; and the question whether it was written to",
  rounds: 3,
  withTorch: true,
  own: [airlock],
  bases: [],
});

export const footprint: Scenario = contended({
  name: "footprint",
  group: "per GB",
  describe: "the memory of all processes together (PSS) while a GiB goes to a worker, and there and back; bytes copied",
  rounds: 3,
  withTorch: true,
  own: [airlock, stdoutJson],
  inSmoke: 1,
  bases: ["pyisolate"],
  plot: "series",
});
