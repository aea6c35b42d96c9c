/**
 * Contenders in Python: scripts in contenders/, each started with the scenario's name and a count, each printing one JSON
 * object of figures.
 *
 * Airlock and its floors run in the environment of the tests. A *rival* is a script that begins with its own
 * requirements (PEP 723) and with what it is called and where it takes part ([tool.airlock-bench]); it runs in an
 * environment of its own, pinned by the hashed requirements beside it, which is made only when asked for.
 */
import { readdirSync, readFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import * as v from "valibot";
import { isMade, makeEnvironment, makeTestEnvironment, type PythonEnvironment } from "../scripts/python.ts";
import { outputOf, root } from "./processes.ts";
import type { Figures, Turn } from "./turns.ts";

const folder = join(import.meta.dir, "contenders");

/** Where the kernel may put a contender's processes, as the beginning of its command. */
const placements = { free: [], "one core": ["taskset", "--cpu-list", "0"] } as const;
export type Placement = keyof typeof placements;

export interface Contender {
  readonly name: string;
  readonly script: string;
  readonly args: readonly string[];
  /** The folder of the environment that it runs in. */
  readonly environment: string;
}

/** A script of this project's, in the environment of the tests. */
export async function ownContender(name: string, script: string, ...args: string[]): Promise<Contender> {
  return { name, script: join(folder, script), args, environment: await makeTestEnvironment() };
}

/** A contender's turns, one for each placement. */
export function turnsOf(
  contender: Contender,
  scenario: string,
  count: number,
  where: readonly Placement[],
): readonly Turn[] {
  const { name, script, args, environment } = contender;
  const bin = join(environment, "bin");
  const env = {
    PATH: `${bin}${delimiter}${process.env["PATH"] ?? ""}`,
    PYTHONPATH: join(root, "worker", "src"),
    AIRLOCK_BIN: join(root, "bin", "airlock.mjs"),
    AIRLOCK_SOCKET: undefined,
  };
  return where.map((placement) => ({
    contender: name,
    condition: placement,
    start: async () => {
      const command = [...placements[placement], join(bin, "python"), script, scenario, String(count), ...args];
      return JSON.parse(await outputOf(command, env)) as Figures;
    },
  }));
}

interface Rival {
  readonly name: string;
  readonly scenarios: readonly string[];
  readonly script: string;
  readonly environment: PythonEnvironment;
}

/** The rivals that take part in a scenario, and a sentence on each that would but isn't installed. */
export function rivalsIn(scenario: string): { readonly contenders: readonly Contender[]; readonly notes: string[] } {
  const rivals = findRivals().filter((rival) => rival.scenarios.includes(scenario));
  const isThere = (rival: Rival): boolean => isMade(rival.environment);
  return {
    contenders: rivals
      .filter(isThere)
      .map(({ name, script, environment }) => ({ name, script, args: [], environment: environment.folder })),
    notes: rivals
      .filter((rival) => !isThere(rival))
      .map(({ name }) => `${name} is absent: \`bun run bench --install-rivals\` installs it`),
  };
}

/** Makes the environments of all rivals; says which could not be made, and why. */
export async function installRivals(): Promise<void> {
  for (const { name, environment } of findRivals()) {
    const problem = await makeEnvironment(environment);
    console.log(problem === undefined ? `${name} is installed` : `${name} could not be installed:\n${problem}`);
  }
}

const headerSchema = v.object({
  tool: v.object({ "airlock-bench": v.object({ name: v.string(), scenarios: v.array(v.string()) }) }),
});

function findRivals(): Rival[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith(".py"))
    .flatMap((file) => {
      const script = join(folder, file);
      const header = scriptHeader(readFileSync(script, "utf8"));
      if (header === undefined) return [];
      const stem = file.slice(0, -".py".length);
      const environment = {
        folder: join(import.meta.dir, ".rivals", stem),
        requirements: join(folder, `${stem}.txt`),
      };
      return { ...v.parse(headerSchema, Bun.TOML.parse(header)).tool["airlock-bench"], script, environment };
    });
}

/** The TOML in a script's comments (PEP 723); undefined where there is none. */
function scriptHeader(source: string): string | undefined {
  const block = /^# \/\/\/ script\n((?:#(?: .*)?\n)+?)# \/\/\/$/m.exec(source)?.[1];
  return block?.replaceAll(/^# ?/gm, "");
}
