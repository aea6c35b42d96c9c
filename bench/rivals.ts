/**
 * Rivals: contenders of other people's making. Each is a script in contenders/ that begins with its requirements
 * (PEP 723) and, under [tool.airlock-bench], with what it is, where it takes part, and the contenders that it can be, by
 * name with their arguments.
 *
 * A rival runs in an environment of its own, pinned by the hashed requirements beside the script, which is made only when
 * asked for. One that isn't there is skipped, and says so.
 */
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { isMade, makeEnvironment, type PythonEnvironment, torchRequirement } from "../scripts/python.ts";
import { type Contender, contendersFolder, startContender } from "./contenders.ts";
import { parametersOf } from "./parameters.ts";
import type { PlanOptions } from "./scenario.ts";

export interface Rival {
  readonly name: string;
  readonly scenarios: readonly string[];
  readonly contenders: readonly Contender[];
  readonly environment: PythonEnvironment;
}

/** The rivals that take part in a scenario, and a sentence on each that would but doesn't. */
export function rivalsIn(
  scenario: string,
  { withRivals }: PlanOptions,
): { readonly contenders: readonly Contender[]; readonly notes: string[] } {
  const rivals = findRivals().filter((rival) => rival.scenarios.includes(scenario));
  if (!withRivals) {
    const notes = rivals.map(({ name }) => `skipped: ${name}, as in all smoke runs; --contender has it take part`);
    return { contenders: [], notes };
  }
  return {
    contenders: rivals.filter(isInstalled).flatMap((rival) => rival.contenders),
    notes: rivals
      .filter((rival) => !isInstalled(rival))
      .map(({ name }) => `skipped: ${name}, not installed; \`bun run bench --install-rivals\` installs it`),
  };
}

export function isInstalled({ environment }: Rival): boolean {
  return isMade(environment);
}

/**
 * Makes the environments of all rivals, and has each rival run in each of its scenarios, which also makes what it needs
 * besides. Says why where one can't, and leaves nothing of it.
 *
 * @returns how many are not there now.
 */
export async function installRivals(): Promise<number> {
  let missing = 0;
  for (const rival of findRivals()) {
    const problem = (await makeEnvironment(rival.environment)) ?? (await tryOut(rival));
    if (problem !== undefined) missing += 1;
    console.log(problem === undefined ? `${rival.name}: installed` : `${rival.name}: not installed:\n${problem}`);
  }
  return missing;
}

/** Has a rival run; removes the environment of one that can't, and returns why. */
async function tryOut({ contenders, scenarios, environment }: Rival): Promise<string | undefined> {
  try {
    for (const contender of contenders) {
      for (const scenario of scenarios) await startContender(contender, scenario, parametersOf(scenario, true), "free");
    }
    return undefined;
  } catch (error) {
    rmSync(environment.folder, { recursive: true, force: true });
    return String(error);
  }
}

const headerSchema = v.object({
  tool: v.object({
    "airlock-bench": v.object({
      name: v.string(),
      scenarios: v.array(v.string()),
      contenders: v.record(v.string(), v.array(v.string())),
      /** Whether it needs a CPU build of torch besides its requirements. */
      torch: v.optional(v.boolean(), false),
    }),
  }),
});

export function findRivals(): Rival[] {
  return readdirSync(contendersFolder)
    .filter((file) => file.endsWith(".py"))
    .flatMap((file) => {
      const script = join(contendersFolder, file);
      const header = scriptHeader(readFileSync(script, "utf8"));
      if (header === undefined) return [];
      const { name, scenarios, contenders, torch } = v.parse(headerSchema, Bun.TOML.parse(header)).tool[
        "airlock-bench"
      ];
      const stem = file.slice(0, -".py".length);
      const folder = join(import.meta.dir, ".rivals", stem);
      return {
        name,
        scenarios,
        contenders: Object.entries(contenders).map(([name, args]) => ({
          ...{ name, script, args, environment: folder },
          isRival: true,
        })),
        environment: {
          folder,
          requirements: join(contendersFolder, `${stem}.txt`),
          ...(torch && { extra: [torchRequirement] }),
        },
      };
    });
}

/** The TOML in a script's comments (PEP 723); undefined where there is none. */
function scriptHeader(source: string): string | undefined {
  const block = /^# \/\/\/ script\n((?:#(?: .*)?\n)+?)# \/\/\/$/m.exec(source)?.[1];
  return block?.replaceAll(/^# ?/gm, "");
}
