/**
 * `bun run bench [SCENARIO] [--rounds N]`: measures and prints. bench/README.md says what each scenario is.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { formatTable } from "../src/cli/table.ts";
import { measureSpawn } from "./spawn.ts";

const { values, positionals } = parseArgs({
  args: Bun.argv.slice(2),
  options: { rounds: { type: "string", default: "15" } },
  allowPositionals: true,
});
const [scenario = "spawn"] = positionals;
const rounds = Math.max(1, Number.parseInt(values.rounds, 10) || 1);

if (scenario === "spawn") {
  const figures = await measureSpawn(rounds);
  const columns = [
    { title: `ms over ${rounds} rounds` },
    ...["median", "min", "max"].map((title) => ({ title, align: "right" as const })),
  ];
  const rows = Object.entries(figures).map(([name, { median, min, max }]) => [
    name,
    ...[median, min, max].map((ms) => ms.toFixed(1)),
  ]);
  console.log(formatTable(columns, rows));
} else if (scenario === "codecs") {
  const python = join(import.meta.dir, "..", ".venv", "bin", "python");
  const { exitCode } = Bun.spawnSync([python, join(import.meta.dir, "codecs.py")], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  process.exit(exitCode);
} else {
  console.error(`there is no scenario ${JSON.stringify(scenario)}; there are: spawn, codecs`);
  process.exit(2);
}
