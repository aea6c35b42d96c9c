/**
 * `bun run bench [SCENARIO …]`: measures and prints. bench/README.md says what each scenario is.
 */
import { parseArgs } from "node:util";
import { formatTable } from "../src/cli/table.ts";
import { randomFrom } from "./random.ts";
import { installRivals } from "./rivals.ts";
import type { RunOptions, Scenario } from "./scenario.ts";
import { calls } from "./scenarios/calls.ts";
import { codecs } from "./scenarios/codecs.ts";
import { inflight } from "./scenarios/inflight.ts";
import { limits } from "./scenarios/limits.ts";
import { relay } from "./scenarios/relay.ts";
import { spawn } from "./scenarios/spawn.ts";
import { again, images, small } from "./scenarios/tensors.ts";

const scenarios: readonly Scenario[] = [spawn, calls, inflight, relay, images, again, small, codecs, limits];

const usage = `bun run bench [SCENARIO …] [options]

  --list             what there is
  --only NAME        the scenarios whose name contains NAME
  --contender NAME   the contenders whose name contains NAME
  --rounds N         fresh starts of every contender (each scenario has a default)
  --seed N           repeats the order of a run that printed it
  --profiles FOLDER  leaves CPU profiles of the servers there
  --smoke            a little of everything: whether it works, not how fast
  --install-rivals   makes the environments of the rivals first`;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    args: Bun.argv.slice(2),
    options: {
      list: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
      only: { type: "string" },
      contender: { type: "string" },
      rounds: { type: "string" },
      seed: { type: "string" },
      profiles: { type: "string" },
      smoke: { type: "boolean", default: false },
      "install-rivals": { type: "boolean", default: false },
    },
    allowPositionals: true,
  });
  if (values.help) return say(usage);
  if (values.list) return say(formatTable([{ title: "scenario" }, { title: "measures" }], scenarios.map(listed)));
  const chosen = choose(positionals, values.only);
  if (values["install-rivals"]) {
    const missing = await installRivals();
    if (positionals.length === 0 && values.only === undefined) return missing === 0 ? 0 : 1;
  }
  const seed = wholeNumber("--seed", values.seed) ?? Math.floor(Math.random() * 2 ** 32);
  const rounds = values.smoke ? 1 : wholeNumber("--rounds", values.rounds);
  console.log(`seed ${seed}`);
  for (const scenario of chosen) {
    await print(scenario, {
      rounds: rounds ?? scenario.rounds,
      smoke: values.smoke,
      random: randomFrom(seed),
      contender: values.contender,
      profiles: values.profiles,
    });
  }
  return 0;
}

function choose(names: readonly string[], only: string | undefined): readonly Scenario[] {
  const known = scenarios.map((scenario) => scenario.name);
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length > 0)
    throw new UsageError(`there is no scenario ${unknown.join(", ")}; there are: ${known.join(", ")}`);
  const chosen = scenarios.filter(
    ({ name }) => (names.length === 0 || names.includes(name)) && name.includes(only ?? ""),
  );
  if (chosen.length === 0) throw new UsageError(`no scenario's name contains ${only}; there are: ${known.join(", ")}`);
  return chosen;
}

async function print(scenario: Scenario, options: RunOptions): Promise<void> {
  console.log(`\n── ${scenario.name}: ${scenario.describe}`);
  const { table, notes } = await scenario.run(options);
  if (table !== undefined && table.rows.length === 0) console.log(`no contender's name contains ${options.contender}`);
  else if (table !== undefined) console.log(formatTable(table.columns, table.rows));
  for (const note of notes) console.log(note);
}

function listed({ name, describe }: Scenario): string[] {
  return [name, describe];
}

function wholeNumber(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new UsageError(`${option} takes a whole number from 1, not ${text}`);
  return value;
}

function say(text: string): number {
  console.log(text);
  return 0;
}

/** What is wrong with the command line. */
class UsageError extends Error {}

try {
  process.exit(await main());
} catch (error) {
  const isUsage = error instanceof UsageError || (error instanceof TypeError && "code" in error);
  if (!isUsage) throw error;
  console.error(`${error.message}\n\n${usage}`);
  process.exit(2);
}
