/**
 * `npm run soak`: tensors go to and fro between hosts and workers that are killed at random; see tests/soak/soak.ts.
 *
 * `--transfers N` (10,000 by default), `--torch` for arrays in memory of torch's, `--seed N` repeats what a run that
 * printed it did.
 */
import { parseArgs } from "node:util";
import { describeFigures, soak } from "../tests/soak/soak.ts";
import { makeTestEnvironment, makeTorchEnvironment } from "./python.ts";

const { values } = parseArgs({
  args: Bun.argv.slice(2),
  options: {
    transfers: { type: "string", default: "10000" },
    seed: { type: "string" },
    torch: { type: "boolean", default: false },
  },
});
const transfers = Number(values.transfers);
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
if (!Number.isSafeInteger(transfers) || transfers < 1 || !Number.isSafeInteger(seed)) {
  console.error("soak: --transfers and --seed take whole numbers");
  process.exit(2);
}
const problem = values.torch ? (await makeTorchEnvironment()).problem : void (await makeTestEnvironment());
if (problem !== undefined) {
  console.error(`soak: no CPU build of torch could be installed: ${problem}`);
  process.exit(2);
}
const repeat = `npm run soak -- --transfers ${transfers} --seed ${seed}${values.torch ? " --torch" : ""}`;
console.log(`seed ${seed}: ${repeat}`);
try {
  const figures = await soak({
    ...{ seed, transfers, torch: values.torch, hosts: 3, threads: 2, perWorkerKill: 25, perHostKill: 250 },
    tell: (line) => console.log(line),
  });
  console.log(`nothing was wrong, and nothing is left: ${describeFigures(figures)}`);
} catch (error) {
  console.error(`seed ${seed}: ${repeat}\n${error instanceof Error ? error.stack : String(error)}`);
  process.exit(1);
}
