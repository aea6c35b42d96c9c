/** The soak of tensors, short: see tests/soak/soak.ts. `npm run soak` is the long one. */
import { expect, test } from "bun:test";
import { writeSync } from "node:fs";
import { describeFigures, soak } from "../soak/soak.ts";

// Not by process.stdout, which takes a descriptor for itself.
const tell = (line: string) => void writeSync(1, `${line}\n`);

test("200 transfers of tensors while workers and hosts are killed: no wrong byte, nothing left, and all go on", async () => {
  const seed = Number(process.env["AIRLOCK_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  tell(`seed ${seed}: AIRLOCK_TEST_SEED=${seed} repeats this, and npm run soak -- --seed ${seed} goes on`);
  const figures = await soak({ seed, transfers: 200, hosts: 2, threads: 2, perWorkerKill: 12, perHostKill: 60, tell });
  tell(describeFigures(figures));
  expect(figures.transfers).toBeGreaterThanOrEqual(200);
  expect(figures.workersKilled).toBeGreaterThan(0);
}, 120_000);
