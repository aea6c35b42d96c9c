/** How quiet the machine is: the same piece of work before each start, and the time that others take. */
import { readFileSync } from "node:fs";
import type { Noise } from "./results.ts";
import { median, quantile } from "./statistics.ts";

/** Beyond these a run says that it was too noisy. */
const probeSpreadMax = 0.3;
const stolenMax = 0.05;

const probeBytes = new Uint8Array(4 * 2 ** 20);

export class NoiseWatch {
  readonly #probeMs: number[] = [];
  readonly #before = cpuTimes();

  /** Does the piece of work: some 3 ms. */
  probe(): void {
    const startMs = performance.now();
    Bun.hash.crc32(probeBytes);
    Bun.hash.xxHash64(probeBytes);
    this.#probeMs.push(performance.now() - startMs);
  }

  result(): Noise {
    const [before, after] = [this.#before, cpuTimes()];
    const all = before === undefined || after === undefined ? 0 : after.all - before.all;
    const stolen =
      before === undefined || after === undefined || all === 0 ? null : (after.stolen - before.stolen) / all;
    return { probeMs: this.#probeMs.map((ms) => Math.round(ms * 1000) / 1000), stolen };
  }
}

/** How wide the middle four fifths of the probes are, as a part of their median. */
export function probeSpread({ probeMs }: Noise): number {
  return probeMs.length < 2 ? 0 : (quantile(probeMs, 0.9) - quantile(probeMs, 0.1)) / median(probeMs);
}

/** What was wrong with the machine while it was measured; undefined where it was quiet enough. */
export function noiseProblem(noise: Noise): string | undefined {
  const spread = probeSpread(noise);
  const said = [
    ...(spread > probeSpreadMax
      ? [`the same work took from one start to the next up to ${percent(spread)} longer`]
      : []),
    ...((noise.stolen ?? 0) > stolenMax ? [`other machines had ${percent(noise.stolen ?? 0)} of this one's time`] : []),
  ];
  return said.length === 0
    ? undefined
    : `too noisy: ${said.join(", and ")}; trust ratios, and wide intervals, and no more`;
}

function percent(part: number): string {
  return `${Math.round(part * 100)} %`;
}

/** Ticks since the start, of all processors; undefined where the kernel doesn't tell. */
function cpuTimes(): { all: number; stolen: number } | undefined {
  try {
    const fields = readFileSync("/proc/stat", "utf8").split("\n", 1)[0]?.split(/\s+/).slice(1).map(Number) ?? [];
    // user nice system idle iowait irq softirq steal; guests are in user.
    return { all: fields.slice(0, 8).reduce((sum, each) => sum + each, 0), stolen: fields[7] ?? 0 };
  } catch {
    return undefined;
  }
}
