/**
 * Calls a second through the server's relay, between peers in C that cost next to nothing themselves: what is measured
 * is door, router, connections and sockets. Beside it, the floor: as bare a relay as Bun can run.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { compilePeers, type Peers } from "../peers.ts";
import { outputOf, type Placement, placements, root, startListener } from "../processes.ts";
import type { Plan, PlanOptions, Scenario, Taken } from "../scenario.ts";

const depths = ["8", "64", "256"];

export const relay: Scenario = {
  name: "relay",
  group: "server",
  describe: "calls a second through the server's relay, between a host and a worker in C",
  rounds: 5,
  bases: ["bare relay"],
  plot: "lines",
  goals: [{ contender: "airlock", condition: "one core", of: "64 in flight", statistic: "calls", atLeast: 300_000 }],
  plan,
};

/** What listens at a socket, as a command that a Bun runs. */
function commands(peers: Peers): Readonly<Record<string, (socket: string) => readonly string[]>> {
  return {
    airlock: (socket) => [
      join(root, "src", "cli", "main.ts"),
      ...["serve", "--socket", socket, "--announce", "--until-stdin-closes"],
    ],
    "bare relay": (socket) => [join(root, "bench", "peers", "bare-relay.ts"), socket, peers.worker],
  };
}

async function plan({ smoke, profiles }: PlanOptions): Promise<Plan> {
  const peers = await compilePeers();
  if (peers === undefined) return { turns: [], notes: ["skipped: there is no C compiler (cc, gcc or clang) on PATH"] };
  const calls = smoke ? 1_000 : 100_000;
  const turns = Object.entries(commands(peers)).flatMap(([contender, command]) =>
    (Object.keys(placements) as Placement[]).map((condition) => ({
      ...{ contender, condition },
      start: () => startOnce(peers, command, condition, calls, profiles),
    })),
  );
  return { turns, notes: [] };
}

async function startOnce(
  peers: Peers,
  command: (socket: string) => readonly string[],
  placement: Placement,
  calls: number,
  profiles: string | undefined,
): Promise<Taken> {
  const folder = mkdtempSync(join(tmpdir(), "airlock-bench-"));
  try {
    const socket = join(folder, "s.sock");
    await using _ = await startListener(command(socket), profiles, placement);
    const host = [...placements[placement], peers.host, socket, peers.pack, String(calls), ...depths];
    const rates = v.parse(v.record(v.string(), v.number()), JSON.parse(await outputOf(host)));
    return {
      figures: Object.entries(rates).map(([of, value]) => ({ of, statistic: "calls", unit: "/s", value })),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
