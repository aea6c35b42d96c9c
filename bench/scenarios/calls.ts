/**
 * One call after the other from a Python host to a Python worker: Airlock over a line and over the relay, beside the old
 * stdout protocol, the floor, and rivals; once free, once with all processes on one core.
 */
import { comparisonTable } from "../comparison.ts";
import { ownContender, turnsOf } from "../contenders.ts";
import { rivalsIn } from "../rivals.ts";
import type { Report, RunOptions, Scenario } from "../scenario.ts";
import { takeTurns } from "../turns.ts";

export const calls: Scenario = {
  name: "calls",
  describe: "microseconds a call, one after the other, from a Python host to a Python worker",
  rounds: 7,
  run,
};

async function run(options: RunOptions): Promise<Report> {
  const own = [
    await ownContender("stdout JSON", "stdout_json.py"),
    await ownContender("socket pair", "socket_pair.py"),
    await ownContender("airlock, line", "airlock.py"),
    await ownContender("airlock, relay", "airlock.py", "--relay"),
  ];
  const rivals = rivalsIn(calls.name);
  const count = options.smoke ? 100 : 3000;
  const turns = [...own, ...rivals.contenders].flatMap((contender) =>
    turnsOf(contender, calls.name, count, ["free", "one core"]),
  );
  const table = comparisonTable(await takeTurns(turns, options), {
    title: `µs a call over ${options.rounds} starts`,
    conditionTitle: "processes",
    figureTitle: "payload",
    digits: 1,
    bases: ["stdout JSON", "socket pair", ...rivals.contenders.map((rival) => rival.name)],
  });
  return { table, notes: rivals.notes };
}
