/** One host that speaks pyisolate's API: on pyisolate, and started by `airlock launch`, with no line of it changed. */
import { join } from "node:path";
import { type Contender, turnsOf } from "../contenders.ts";
import { root } from "../processes.ts";
import { rivalsIn } from "../rivals.ts";
import type { Goal, Plan, PlanOptions, Scenario } from "../scenario.ts";

const name = "drop-in";
const onAirlock = "airlock, drop-in";

function launched(contender: Contender): Contender {
  const launcher = [process.execPath, join(root, "bin", "airlock.mjs"), "launch", "--"];
  return { ...contender, name: onAirlock, launcher, isRival: false };
}

async function plan(options: PlanOptions): Promise<Plan> {
  const { contenders, notes } = rivalsIn(name, options);
  const both = contenders.flatMap((each) => [launched(each), each]);
  return { turns: both.flatMap((each) => turnsOf(each, name, options.smoke, ["free"])), notes };
}

const ratio = (of: string, statistic: string, atMost: number): Goal => ({
  ...{ contender: onAirlock, of, statistic, atMost, base: { contender: "pyisolate" } },
});

export const dropIn: Scenario = {
  name,
  group: "drop-in",
  describe: "one host on pyisolate, and the same on Airlock: first answer with torch, calls, an image, a GiB",
  rounds: 5,
  bases: ["pyisolate"],
  isShown: ({ statistic }) => statistic === "p50" || statistic.startsWith("first answer"),
  goals: [
    ratio("int", "p50", 0.3),
    ratio("node's arguments", "p50", 0.3),
    ratio("16 MiB both", "p50", 0.4),
    ratio("1 GiB in", "p50", 0.15),
    ratio("from nothing", "first answer, torch imported", 0.8),
  ],
  plan,
};
