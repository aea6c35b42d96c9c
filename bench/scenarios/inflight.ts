/**
 * Calls a second from one Python host to one Python worker while 1, 8 and 64 of them are in flight: made by as many
 * tasks of an event loop, and by as many threads; Airlock over a line and over the relay, beside rivals.
 */
import { comparisonTable } from "../comparison.ts";
import { ownContender, turnsOf } from "../contenders.ts";
import { rivalsIn } from "../rivals.ts";
import type { Report, RunOptions, Scenario } from "../scenario.ts";
import { takeTurns } from "../turns.ts";

export const inflight: Scenario = {
  name: "inflight",
  describe: "calls a second from a Python host to a Python worker, by tasks and threads that each wait for one",
  rounds: 5,
  run,
};

async function run(options: RunOptions): Promise<Report> {
  const own = [
    await ownContender("airlock, line", "airlock.py"),
    await ownContender("airlock, relay", "airlock.py", "--relay"),
  ];
  const rivals = rivalsIn(inflight.name);
  const count = options.smoke ? 100 : 5000;
  const turns = [...own, ...rivals.contenders].flatMap((contender) =>
    turnsOf(contender, inflight.name, count, ["free"]),
  );
  const table = comparisonTable(await takeTurns(turns, options), {
    title: `calls/s over ${options.rounds} starts`,
    conditionTitle: "processes",
    figureTitle: "callers",
    digits: 0,
    bases: rivals.contenders.map((rival) => rival.name),
  });
  return { table, notes: rivals.notes };
}
