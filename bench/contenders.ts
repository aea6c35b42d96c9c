/**
 * Contenders in Python: scripts in contenders/, each started with the scenario's name and its parameters, each printing
 * figures as JSON.
 */
import { delimiter, join } from "node:path";
import * as v from "valibot";
import { makeTestEnvironment, makeTorchEnvironment } from "../scripts/python.ts";
import { type Parameters, parametersOf } from "./parameters.ts";
import { outputOf, type Placement, placements, root } from "./processes.ts";
import { figureSchema, seriesSchema } from "./results.ts";
import type { Taken, Turn } from "./scenario.ts";

export const contendersFolder = join(import.meta.dir, "contenders");

export interface Contender {
  readonly name: string;
  readonly script: string;
  readonly args: readonly string[];
  /** The folder of the environment that it runs in. */
  readonly environment: string;
  /** What goes before its command. */
  readonly launcher?: readonly string[];
  readonly isRival?: boolean;
}

/** One of this project's own: Airlock, a floor, or the old protocol. */
export interface OwnContender {
  readonly name: string;
  /** The script, and its further arguments. */
  readonly command: readonly [script: string, ...args: string[]];
}

/** Has them run in the environment of the tests; with torch, in the one that has it. Throws where that can't be made. */
export async function ownContenders(contenders: readonly OwnContender[], withTorch: boolean): Promise<Contender[]> {
  const environment = withTorch ? await torchFolder() : await makeTestEnvironment();
  return contenders.map(({ name, command: [script, ...args] }) => ({
    ...{ name, args, environment },
    script: join(contendersFolder, script),
  }));
}

async function torchFolder(): Promise<string> {
  const { folder, problem } = await makeTorchEnvironment();
  if (problem !== undefined) throw new Error(`no environment with torch could be made:\n${problem}`);
  return folder;
}

const printedSchema = v.array(v.union([figureSchema, seriesSchema]));

/** Starts a contender once. Throws where it fails, or prints anything but figures. */
export async function startContender(
  { script, args, environment, launcher = [] }: Contender,
  scenario: string,
  parameters: Parameters,
  placement: Placement,
): Promise<Taken> {
  const bin = join(environment, "bin");
  const env = {
    PATH: `${bin}${delimiter}${process.env["PATH"] ?? ""}`,
    PYTHONPATH: join(root, "worker", "src"),
    AIRLOCK_BIN: join(root, "bin", "airlock.mjs"),
    AIRLOCK_SOCKET: undefined,
    // Where it is set, every import compiles anew, and torch's takes twice as long.
    PYTHONDONTWRITEBYTECODE: undefined,
  };
  const command = [
    ...placements[placement],
    ...launcher,
    join(bin, "python"),
    script,
    scenario,
    JSON.stringify(parameters),
    ...args,
  ];
  const printed = v.parse(printedSchema, JSON.parse(await outputOf(command, env)));
  return {
    figures: printed.flatMap((each) => ("statistic" in each ? [each] : [])),
    series: printed.flatMap((each) => ("points" in each ? [each] : [])),
  };
}

/** A contender's turns, one for each placement. */
export function turnsOf(contender: Contender, scenario: string, isSmoke: boolean, where: readonly Placement[]): Turn[] {
  return where.map((placement) => ({
    contender: contender.name,
    condition: placement,
    isRival: contender.isRival ?? false,
    start: () => startContender(contender, scenario, parametersOf(scenario, isSmoke), placement),
  }));
}
