/** The benchmarks, a little of each: that they work and check their answers, and not how fast anything is. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { root, useWorld } from "./support.ts";

const world = useWorld();

async function runBench(...args: string[]) {
  const child = Bun.spawn([process.execPath, join(root, "bench", "main.ts"), ...args], {
    cwd: world.folder,
    env: world.variables(),
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { code: await child.exited, stdout, stderr };
}

/** The part of the output that is about one scenario. */
function sectionOf(output: string, scenario: string): string {
  const section = output.split("\n── ").find((each) => each.startsWith(`${scenario}: `));
  if (section === undefined) throw new Error(`nothing on ${scenario} in:\n${output}`);
  return section;
}

/** What a table's first and third column say, which are contender and figure; and that each row has its numbers. */
function rowsOf(section: string): string[] {
  const rows = section.split("\n").filter((line) => /\d\s*$/.test(line) && !line.startsWith("skipped"));
  for (const row of rows) expect(row).not.toContain("NaN");
  return rows.map((row) => row.split(/ {2,}/)).map(([contender, , figure]) => `${contender}: ${figure}`);
}

describe("bench", () => {
  test("--smoke does a little of every scenario, and names who is absent", async () => {
    const { code, stdout, stderr } = await runBench("--smoke", "--seed", "7");
    expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toStartWith("seed 7\n");
    expect(sectionOf(stdout, "spawn")).toContain("call after a crash");
    expect(sectionOf(stdout, "limits")).toContain("64 workers");
    const calls = rowsOf(sectionOf(stdout, "calls"));
    for (const contender of ["stdout JSON", "socket pair", "airlock, line", "airlock, relay"]) {
      // Free, and on one core.
      expect(calls.filter((row) => row === `${contender}: node's arguments`)).toHaveLength(2);
    }
    const inflight = rowsOf(sectionOf(stdout, "inflight"));
    for (const contender of ["airlock, line", "airlock, relay"]) {
      for (const callers of ["1 task", "8 tasks", "64 tasks", "1 thread", "8 threads", "64 threads"]) {
        expect(inflight).toContain(`${contender}: ${callers}`);
      }
    }
    const relay = sectionOf(stdout, "relay");
    if (!relay.includes("skipped: ")) expect(rowsOf(relay)).toContain("airlock: 64 in flight");
    for (const [scenario, rival] of [
      ["calls", "pyisolate"],
      ["inflight", "pyisolate"],
      ["codecs", "ormsgpack"],
    ] as const) {
      const section = sectionOf(stdout, scenario);
      const isMeasured = rowsOf(section).some((row) => row.startsWith(rival));
      expect(isMeasured || /^skipped: .*--install-rivals/m.test(section)).toBe(true);
    }
  });

  test.each([
    [["nothing"], "there is no scenario nothing"],
    [["--rounds", "none"], "--rounds takes a whole number"],
    [["--fast"], "--fast"],
  ])("%j is refused with exit code 2 and how it is used", async (args, message) => {
    const { code, stderr } = await runBench(...args);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
    expect(stderr).toContain("bun run bench [SCENARIO …]");
  });
});
