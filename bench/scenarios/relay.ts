/**
 * Calls a second through the server's relay, between peers in C that cost next to nothing themselves: what is measured
 * is door, router, connections and sockets. Beside it, the floor: as bare a relay as Bun can run.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { comparisonTable } from "../comparison.ts";
import { compilePeers, type Peers } from "../peers.ts";
import { outputOf, type Placement, placements, root, startListener } from "../processes.ts";
import type { Report, RunOptions, Scenario } from "../scenario.ts";
import { type Figures, type Turn, takeTurns } from "../turns.ts";

const depths = ["8", "64", "256"];

export const relay: Scenario = {
  name: "relay",
  describe: "calls a second through the server's relay, between a host and a worker in C",
  rounds: 7,
  run,
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

async function run(options: RunOptions): Promise<Report> {
  const peers = await compilePeers();
  if (peers === undefined) return { notes: ["skipped: there is no C compiler (cc, gcc or clang) on PATH"] };
  const calls = options.smoke ? 1_000 : 100_000;
  const turns = Object.entries(commands(peers)).flatMap(([contender, command]) =>
    (Object.keys(placements) as Placement[]).map(
      (condition): Turn => ({
        contender,
        condition,
        start: () => startOnce(peers, command, condition, calls, options.profiles),
      }),
    ),
  );
  const table = comparisonTable(await takeTurns(turns, options), {
    title: `calls/s over ${options.rounds} starts`,
    conditionTitle: "processes",
    figureTitle: "calls",
    digits: 0,
    bases: ["bare relay"],
  });
  return { table, notes: [] };
}

async function startOnce(
  peers: Peers,
  command: (socket: string) => readonly string[],
  placement: Placement,
  calls: number,
  profiles: string | undefined,
): Promise<Figures> {
  const folder = mkdtempSync(join(tmpdir(), "airlock-bench-"));
  try {
    const socket = join(folder, "s.sock");
    await using _ = await startListener(command(socket), profiles, placement);
    return JSON.parse(
      await outputOf([...placements[placement], peers.host, socket, peers.pack, String(calls), ...depths]),
    ) as Figures;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
