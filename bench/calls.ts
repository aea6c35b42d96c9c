/**
 * One call after the other from a Python host to a Python worker: Airlock beside the old stdout protocol and the floor.
 *
 * Where the kernel places two processes makes single starts bimodal, so every contender is started afresh in each round,
 * in turn with the others, and the median over rounds counts; once free, once with all its processes on one core.
 */
import { join } from "node:path";
import { type Summary, summarise } from "./statistics.ts";

const root = join(import.meta.dir, "..");
const python = join(root, ".venvs", "test", "bin", "python");

/** The script of a contender, and its arguments after the number of calls. */
const contenders: Readonly<Record<string, readonly string[]>> = {
  "stdout JSON": ["stdout_json.py"],
  "socket pair": ["socket_pair.py"],
  airlock: ["airlock.py", join(root, "tests", "packs", "probe")],
};

export const placements = { free: [], "one core": ["taskset", "--cpu-list", "0"] } as const;
export type Placement = keyof typeof placements;

/** Microseconds a call, the medians of single starts summarised over rounds. */
export interface CallFigures {
  readonly contender: string;
  readonly placement: Placement;
  readonly payload: string;
  readonly us: Summary;
}

/** @param calls how many of each payload a start makes. */
export async function measureCalls(rounds: number, calls: number): Promise<CallFigures[]> {
  const samples = new Map<string, number[]>();
  for (let round = 0; round < rounds; round++) {
    for (const placement of Object.keys(placements) as Placement[]) {
      for (const contender of Object.keys(contenders)) {
        for (const [payload, us] of Object.entries(await startOnce(contender, placement, calls))) {
          const key = JSON.stringify([contender, placement, payload]);
          samples.set(key, [...(samples.get(key) ?? []), us]);
        }
      }
    }
  }
  return [...samples].map(([key, each]) => {
    const [contender, placement, payload] = JSON.parse(key) as [string, Placement, string];
    return { contender, placement, payload, us: summarise(each) };
  });
}

/** One start of a contender: the median of each payload, in microseconds. */
async function startOnce(contender: string, placement: Placement, calls: number): Promise<Record<string, number>> {
  const [script = "", ...args] = contenders[contender] ?? [];
  const folder = join(import.meta.dir, "contenders");
  const command = [...placements[placement], python, join(folder, script), String(calls), ...args];
  const env = {
    ...process.env,
    PYTHONPATH: `${join(root, "worker", "src")}:${folder}`,
    AIRLOCK_BIN: join(root, "bin", "airlock.mjs"),
    AIRLOCK_SOCKET: "",
  };
  const child = Bun.spawn(command, { env, stdio: ["ignore", "pipe", "inherit"] });
  const said = await new Response(child.stdout).text();
  if ((await child.exited) !== 0) throw new Error(`${contender} failed with exit code ${child.exitCode}`);
  return JSON.parse(said) as Record<string, number>;
}
