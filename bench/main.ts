/**
 * `bun run bench [SCENARIO …]`: measures, prints, and leaves what was asked for. bench/README.md says what each scenario is.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeTestEnvironment } from "../scripts/python.ts";
import { formatTable } from "../src/cli/table.ts";
import { type CommandLine, parseCommandLine, UsageError, usage } from "./command-line.ts";
import { describeMachine, describeVersions } from "./machine.ts";
import { endRunning } from "./processes.ts";
import { changesBetween, changesText } from "./report/compare.ts";
import { runDocument } from "./report/document.ts";
import { headlinePicture } from "./report/headline.ts";
import { htmlReport } from "./report/html.ts";
import { resultText } from "./report/table.ts";
import { newRun, type Run, readRun, type ScenarioResult } from "./results.ts";
import { findRivals, installRivals, isInstalled } from "./rivals.ts";
import { measureAll } from "./run.ts";
import type { Scenario } from "./scenario.ts";
import { scenarios } from "./scenarios/all.ts";

async function main(): Promise<number> {
  const options = parseCommandLine(Bun.argv.slice(2));
  if (options.help) return say(usage);
  if (options.list) return say(listText());
  if (options.rivals) return say(rivalsText());
  if (options.compare) return compare(options.names);
  if (options.from !== undefined) return await repeat(readRun(options.from), options);
  const chosen = choose(options);
  if (options["install-rivals"]) {
    const missing = await installRivals();
    if (options.names.length === 0 && options.only === "") return missing === 0 ? 0 : 1;
  }
  return await measure(chosen, options);
}

async function measure(chosen: readonly Scenario[], options: CommandLine): Promise<number> {
  const { smoke, json, contender: contenders, profiles } = options;
  const seed = options.seed ?? Math.floor(Math.random() * 2 ** 32);
  const rounds = smoke ? 1 : options.rounds;
  console.log(`seed ${seed}`);
  const python = join(await makeTestEnvironment(), "bin", "python");
  const [machine, versions] = [describeMachine(), await describeVersions(python)];
  const run = newRun({ startedAt: new Date().toISOString(), seed, smoke, machine, versions });
  console.log([...Object.values(machine).slice(0, 4), ...Object.entries(versions).flat()].join(" · "));
  await measureAll(chosen, {
    ...{ seed, rounds, smoke, contenders, profiles },
    onResult: (scenario, result) => {
      run.results.push(result);
      print(scenario, result, options);
      // What was measured so far is kept, whatever becomes of the rest.
      if (json !== undefined) writeFileSync(json, `${JSON.stringify(run)}\n`);
    },
  });
  if (contenders.length > 0 && run.results.every(({ measurements }) => measurements.length === 0))
    console.log(`no contender's name contains ${contenders.join(" or ")}`);
  await leave(run, options);
  return run.results.some(({ failures }) => failures.length > 0) ? 1 : 0;
}

/** Prints what was measured before. */
async function repeat(run: Run, options: CommandLine): Promise<number> {
  for (const scenario of choose(options)) {
    const result = run.results.find((each) => each.scenario === scenario.name);
    if (result !== undefined) print(scenario, result, options);
  }
  await leave(run, options);
  return 0;
}

function print(scenario: Scenario, result: ScenarioResult, { all }: CommandLine): void {
  const text = resultText(scenario, result, { width: process.stdout.columns ?? 100, isAll: all });
  console.log(`\n── ${scenario.name}: ${scenario.describe}\n${text}`);
}

/** Writes the files that were asked for. */
async function leave(run: Run, { html, svg, markdown }: CommandLine): Promise<void> {
  if (markdown !== undefined) writeFileSync(markdown, runDocument(run, scenarios));
  if (html !== undefined) writeFileSync(html, await htmlReport(run, scenarios));
  if (svg === undefined) return;
  const picture = await headlinePicture(run);
  if (picture === undefined) throw new UsageError("--svg takes a run with the scenario calls or sizes");
  writeFileSync(svg, picture);
}

function compare(files: readonly string[]): number {
  const [earlier, later, ...more] = files;
  if (earlier === undefined || later === undefined || more.length > 0)
    throw new UsageError("--compare takes two files");
  const changes = changesBetween(readRun(earlier), readRun(later), scenarios);
  if (changes.length === 0) throw new UsageError(`${earlier} and ${later} have no measurement in common`);
  console.log(changesText(changes));
  return changes.some(({ verdict }) => verdict === "slower") ? 1 : 0;
}

function choose({ names, only }: CommandLine): readonly Scenario[] {
  const known = scenarios.map((scenario) => scenario.name);
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length > 0)
    throw new UsageError(`there is no scenario ${unknown.join(", ")}; there are: ${known.join(", ")}`);
  const chosen = scenarios.filter(({ name }) => (names.length === 0 || names.includes(name)) && name.includes(only));
  if (chosen.length === 0) throw new UsageError(`no scenario's name contains ${only}; there are: ${known.join(", ")}`);
  return chosen;
}

function listText(): string {
  const columns = [{ title: "scenario" }, { title: "" }, { title: "measures" }];
  return formatTable(
    columns,
    scenarios.map(({ name, group, describe }) => [name, group, describe]),
  );
}

function rivalsText(): string {
  const columns = [{ title: "rival" }, { title: "" }, { title: "takes part in" }];
  const rows = findRivals().map((rival) => [
    rival.name,
    isInstalled(rival) ? "installed" : "absent",
    rival.scenarios.join(", "),
  ]);
  return `${formatTable(columns, rows)}\n--install-rivals installs them`;
}

function say(text: string): number {
  console.log(text);
  return 0;
}

process.once("SIGINT", () => {
  endRunning();
  process.exit(130);
});
try {
  process.exit(await main());
} catch (error) {
  endRunning();
  const isUsage = error instanceof UsageError || (error instanceof TypeError && "code" in error);
  if (!isUsage) throw error;
  console.error(`${error.message}\n\n${usage}`);
  process.exit(2);
}
