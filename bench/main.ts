/**
 * `bun run bench [SCENARIO] [--rounds N]`: measures and prints. bench/README.md says what each scenario is.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { formatTable } from "../src/cli/table.ts";
import { type CallFigures, measureCalls } from "./calls.ts";
import { measureSpawn } from "./spawn.ts";

const scenarios: Readonly<Record<string, { readonly rounds: number; run(rounds: number): Promise<void> }>> = {
  spawn: { rounds: 15, run: spawn },
  calls: { rounds: 7, run: calls },
  codecs: { rounds: 1, run: codecs },
};

async function spawn(rounds: number): Promise<void> {
  const columns = [{ title: `ms over ${rounds} rounds` }, ...["median", "min", "max"].map(figure)];
  const rows = Object.entries(await measureSpawn(rounds)).map(([name, { median, min, max }]) => [
    name,
    ...[median, min, max].map((ms) => ms.toFixed(1)),
  ]);
  console.log(formatTable(columns, rows));
}

async function calls(rounds: number): Promise<void> {
  const figures = await measureCalls(rounds, 3000);
  const columns = [
    { title: `µs a call over ${rounds} starts` },
    { title: "processes" },
    { title: "payload" },
    ...["median", "min", "max", "of stdout JSON", "of socket pair"].map(figure),
  ];
  const medianOf = (contender: string, like: CallFigures): number =>
    figures.find((each) => each.contender === contender && isAlike(each, like))?.us.median ?? Number.NaN;
  const rows = figures.map((each) => [
    each.contender,
    each.placement,
    each.payload,
    ...[each.us.median, each.us.min, each.us.max].map((us) => us.toFixed(1)),
    ...["stdout JSON", "socket pair"].map((base) => (each.us.median / medianOf(base, each)).toFixed(2)),
  ]);
  console.log(formatTable(columns, rows));
}

function isAlike(a: CallFigures, b: CallFigures): boolean {
  return a.placement === b.placement && a.payload === b.payload;
}

async function codecs(): Promise<void> {
  const python = join(import.meta.dir, "..", ".venv", "bin", "python");
  const child = Bun.spawn([python, join(import.meta.dir, "codecs.py")], { stdio: ["ignore", "inherit", "inherit"] });
  if ((await child.exited) !== 0) process.exit(1);
}

function figure(title: string) {
  return { title, align: "right" as const };
}

const { values, positionals } = parseArgs({
  args: Bun.argv.slice(2),
  options: { rounds: { type: "string" } },
  allowPositionals: true,
});
const [name = "spawn"] = positionals;
const scenario = Object.hasOwn(scenarios, name) ? scenarios[name] : undefined;
if (scenario === undefined) {
  console.error(`there is no scenario ${JSON.stringify(name)}; there are: ${Object.keys(scenarios).join(", ")}`);
  process.exit(2);
}
await scenario.run(Math.max(1, Number.parseInt(values.rounds ?? "", 10) || scenario.rounds));
