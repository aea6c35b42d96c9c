/** Which msgpack library the Python side should use. ARCHITECTURE.md, "Decisions", has the conclusion. */
import { comparisonTable } from "../comparison.ts";
import { rivalsIn, turnsOf } from "../contenders.ts";
import type { Report, RunOptions, Scenario } from "../scenario.ts";
import { takeTurns } from "../turns.ts";

/** As contenders/codecs.py names them. */
const libraries = ["msgpack", "ormsgpack", "msgspec"];

export const codecs: Scenario = {
  name: "codecs",
  describe: "microseconds that msgpack libraries for Python take for what calls carry, and for their import",
  rounds: 3,
  run,
};

async function run(options: RunOptions): Promise<Report> {
  const { contenders, notes } = rivalsIn(codecs.name);
  const count = options.smoke ? 10 : 3000;
  const turns = contenders.flatMap((script) =>
    libraries.flatMap((name) => turnsOf({ ...script, name, args: [name] }, codecs.name, count, ["free"])),
  );
  if (turns.length === 0) return { notes };
  const table = comparisonTable(await takeTurns(turns, options), {
    title: `µs over ${options.rounds} starts`,
    conditionTitle: "processes",
    figureTitle: "of what",
    digits: 2,
    bases: ["msgpack"],
  });
  return { table, notes };
}
