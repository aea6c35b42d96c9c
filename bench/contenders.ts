/**
 * Contenders in Python: scripts in contenders/, each started with the scenario's name and a count, each printing one JSON
 * object of figures.
 */
import { delimiter, join } from "node:path";
import { makeTestEnvironment, makeTorchEnvironment } from "../scripts/python.ts";
import { outputOf, type Placement, placements, root } from "./processes.ts";
import type { Figures, Turn } from "./turns.ts";

export const contendersFolder = join(import.meta.dir, "contenders");

export interface Contender {
  readonly name: string;
  readonly script: string;
  readonly args: readonly string[];
  /** The folder of the environment that it runs in. */
  readonly environment: string;
}

/** Airlock or one of its floors: a script of this project's, in the environment of the tests. */
export async function ownContender(name: string, script: string, ...args: string[]): Promise<Contender> {
  return { name, script: join(contendersFolder, script), args, environment: await makeTestEnvironment() };
}

/** As {@link ownContender}, in the environment with torch. Throws where that can't be made. */
export async function torchContender(name: string, script: string, ...args: string[]): Promise<Contender> {
  const { folder, problem } = await makeTorchEnvironment();
  if (problem !== undefined) throw new Error(`no environment with torch could be made:\n${problem}`);
  return { name, script: join(contendersFolder, script), args, environment: folder };
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
