/** Which msgpack library the Python side should use. ARCHITECTURE.md, "Decisions", has the conclusion. */
import { comparisonTable } from "../comparison.ts";
import { turnsOf } from "../contenders.ts";
import { rivalsIn } from "../rivals.ts";
import type { Report, RunOptions, Scenario } from "../scenario.ts";
import { takeTurns } from "../turns.ts";

export const codecs: Scenario = {
  name: "codecs",
  describe: "microseconds that msgpack libraries for Python take for what calls carry, and for their import",
  rounds: 3,
  run,
};

async function run(options: RunOptions): Promise<Report> {
  const { contenders, notes } = rivalsIn(codecs.name);
  if (contenders.length === 0) return { notes };
  const count = options.smoke ? 10 : 3000;
  const turns = contenders.flatMap((library) => turnsOf(library, codecs.name, count, ["free"]));
  const table = comparisonTable(await takeTurns(turns, options), {
    title: `µs over ${options.rounds} starts`,
    conditionTitle: "processes",
    figureTitle: "of what",
    digits: 2,
    bases: ["msgpack"],
  });
  return { table, notes };
}
