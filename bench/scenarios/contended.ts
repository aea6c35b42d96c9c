/** A scenario in which contenders do the same thing, each in its own way: this project's own and the rivals that are there. */
import { type OwnContender, ownContenders, turnsOf } from "../contenders.ts";
import type { Placement } from "../processes.ts";
import { rivalsIn } from "../rivals.ts";
import type { Plan, PlanOptions, Scenario } from "../scenario.ts";

export interface Contended extends Omit<Scenario, "plan"> {
  readonly own: readonly OwnContender[];
  /** Whether they run with torch. */
  readonly withTorch?: boolean;
  /** Who of {@link own} takes part in a smoke run, where starting each takes long; all by default. */
  readonly inSmoke?: number;
  /** Where processes run; anywhere by default. */
  readonly where?: readonly Placement[];
}

export function contended({
  own,
  inSmoke = own.length,
  withTorch = false,
  where = ["free"],
  ...scenario
}: Contended): Scenario {
  const plan = async (options: PlanOptions): Promise<Plan> => {
    const rivals = rivalsIn(scenario.name, options);
    const { smoke } = options;
    const chosen = own.slice(0, smoke ? inSmoke : own.length);
    const contenders = [...(await ownContenders(chosen, withTorch)), ...rivals.contenders];
    return {
      turns: contenders.flatMap((contender) => turnsOf(contender, scenario.name, smoke, where)),
      notes: rivals.notes,
    };
  };
  return { ...scenario, plan };
}

export const airlock: OwnContender = { name: "airlock", command: ["airlock.py"] };
export const airlockLine: OwnContender = { name: "airlock, line", command: ["airlock.py"] };
export const airlockRelay: OwnContender = { name: "airlock, relay", command: ["airlock.py", "relay"] };
export const stdoutJson: OwnContender = { name: "stdout JSON", command: ["stdout_json.py"] };
export const socketPair: OwnContender = { name: "socket pair", command: ["socket_pair.py"] };
export const socketPairBytes: OwnContender = { name: "socket pair, bytes", command: ["socket_pair.py", "bytes"] };
export const inProcess: OwnContender = { name: "in process", command: ["in_process.py"] };
export const memcpy: OwnContender = { name: "one memcpy", command: ["in_process.py", "memcpy"] };
