/** The soak of tensors, short: see tests/soak/soak.ts. `npm run soak` is the long one. */
import { expect, test } from "bun:test";
import { existsSync, writeSync } from "node:fs";
import { describeFigures, soak, torchPython } from "../soak/soak.ts";

// Not by process.stdout, which takes a descriptor for itself.
const tell = (line: string) => void writeSync(1, `${line}\n`);

async function transfer(torch: boolean): Promise<void> {
  const seed = Number(process.env["AIRLOCK_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  const more = torch ? " --torch" : "";
  tell(`seed ${seed}: AIRLOCK_TEST_SEED=${seed} repeats this, and npm run soak -- --seed ${seed}${more} goes on`);
  const how = { torch, hosts: 2, threads: 2, perWorkerKill: 12, perHostKill: 60 };
  const figures = await soak({ seed, transfers: 200, ...how, tell });
  tell(describeFigures(figures));
  expect(figures.transfers).toBeGreaterThanOrEqual(200);
  expect(figures.workersKilled).toBeGreaterThan(0);
}

const promise = "while workers and hosts are killed: no wrong byte, nothing left, and all go on";

test(`200 transfers of tensors ${promise}`, () => transfer(false), 120_000);

// Made by the part of the tests before this one; it says why where it can't be.
test.skipIf(!existsSync(torchPython))(`200 transfers of torch's own memory ${promise}`, () => transfer(true), 120_000);
