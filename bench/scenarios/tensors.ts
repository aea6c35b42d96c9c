/**
 * Tensors: to a worker and back, sent again and passed on, and many small ones; Airlock beside a rival, the same function
 * in the host's own process, and a copy in memory.
 */
import { comparisonTable } from "../comparison.ts";
import { torchContender, turnsOf } from "../contenders.ts";
import { rivalsIn } from "../rivals.ts";
import type { Report, RunOptions, Scenario } from "../scenario.ts";
import { takeTurns } from "../turns.ts";

export const images: Scenario = {
  name: "images",
  describe: "1.0 - image in a worker, there and back, and a GiB to one that reads its first element",
  rounds: 5,
  run: (options) => measure(images, options, options.smoke ? 1 : 5),
};

export const again: Scenario = {
  name: "again",
  describe: "a tensor that was received, passed on, and a shared one, sent again, in empty calls",
  rounds: 5,
  run: (options) => measure(again, options, options.smoke ? 5 : 500),
};

export const small: Scenario = {
  name: "small",
  describe: "1,000 tensors of 1 KiB in one message, beside the same bytes in a list",
  rounds: 5,
  run: (options) => measure(small, options, options.smoke ? 10 : 300),
};

async function measure(scenario: Scenario, options: RunOptions, count: number): Promise<Report> {
  const rivals = rivalsIn(scenario.name);
  const own = await torchContender("airlock", "airlock_tensors.py");
  const turns = [own, ...rivals.contenders].flatMap((each) => turnsOf(each, scenario.name, count, ["free"]));
  const table = comparisonTable(await takeTurns(turns, options), {
    title: `over ${options.rounds} starts`,
    conditionTitle: "processes",
    figureTitle: "of what",
    digits: 2,
    bases: rivals.contenders.map((rival) => rival.name),
  });
  return { table, notes: rivals.notes };
}
