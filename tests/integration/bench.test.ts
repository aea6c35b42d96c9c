/** The benchmarks, a little of each: that they work and check their answers, and not how fast anything is. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Run, readRun } from "../../bench/results.ts";
import { scenarios } from "../../bench/scenarios/all.ts";
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

/** What a run has left: who was measured at what, by scenario. */
function measuredIn(run: Run, scenario: string): string[] {
  const result = run.results.find((each) => each.scenario === scenario) ?? expect.unreachable(`nothing on ${scenario}`);
  expect(result.failures).toEqual([]);
  for (const { samples } of result.measurements) for (const each of samples) expect(each).toBeFinite();
  return result.measurements.map(({ contender, of, statistic }) => `${contender}: ${of}, ${statistic}`);
}

describe("bench", () => {
  test("--smoke does a little of every scenario, and names who is absent", async () => {
    const [json, html, svg] = ["run.json", "run.html", "run.svg"].map((name) => join(world.folder, name)) as [
      string,
      string,
      string,
    ];
    const { code, stdout, stderr } = await runBench(
      "--smoke",
      "--seed",
      "7",
      "--json",
      json,
      "--html",
      html,
      "--svg",
      svg,
    );
    expect({ code, stderr: code === 0 ? "" : stdout + stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toStartWith("seed 7\n");
    const run = readRun(json);
    expect(run.results.map(({ scenario }) => scenario)).toEqual(scenarios.map(({ name }) => name));
    const calls = measuredIn(run, "calls");
    for (const contender of ["stdout JSON", "socket pair", "airlock, line", "airlock, relay"]) {
      // Free, and on one core.
      expect(calls.filter((each) => each === `${contender}: node's arguments, p50`)).toHaveLength(2);
      expect(calls).toContain(`${contender}: int, CPU of worker, 100,000 calls`);
    }
    const inflight = measuredIn(run, "inflight");
    for (const contender of ["airlock, line", "airlock, relay"]) {
      for (const callers of ["1 task", "8 tasks", "256 tasks", "1 thread", "8 threads", "256 threads"]) {
        expect(inflight).toContain(`${contender}: ${callers}, calls`);
      }
    }
    const sizes = measuredIn(run, "sizes");
    for (const contender of ["airlock", "stdout JSON"]) {
      for (const kind of ["in", "in, again", "back", "both"]) expect(sizes).toContain(`${contender}: 1 MiB, ${kind}`);
    }
    expect(measuredIn(run, "footprint")).toContain("airlock: 2 MiB both, bytes copied per byte");
    expect(measuredIn(run, "idle")).toContain("airlock: torch imported, PSS of worker");
    expect(measuredIn(run, "first-call")).toContain("airlock: call after a crash, back-off included, once");
    expect(measuredIn(run, "limits")).toContain("airlock: 64 workers, p50");
    for (const { name, group } of scenarios) {
      const result = run.results.find(({ scenario }) => scenario === name);
      // Each rival takes part, or it is said how to install it; GPU scenarios say why they are skipped.
      if (group === "GPU" || result?.measurements.length === 0) expect(result?.notes.join("\n")).toMatch(/^skipped: /m);
    }
    expect(readFileSync(html, "utf8")).toContain("a smoke run: its figures mean nothing");
    expect(readFileSync(svg, "utf8")).toStartWith("<svg ");
    const again = await runBench("--from", json, "--only", "first-call");
    expect(again.stdout).toContain("first call of a pack");
    const same = await runBench("--compare", json, json);
    expect({ code: same.code, stdout: same.stdout }).toEqual({
      code: 0,
      stdout: expect.stringContaining("0 slower, 0 faster"),
    });
    // Torch is imported some twenty times.
  }, 400_000);

  test("--list and --rivals say what there is", async () => {
    const { stdout } = await runBench("--list");
    for (const { name } of scenarios) expect(stdout).toMatch(new RegExp(`^${name} `, "m"));
    expect((await runBench("--rivals")).stdout).toMatch(/^pyisolate \S+ .*(installed|absent)/m);
  });

  test.each([
    [["nothing"], "there is no scenario nothing"],
    [["--rounds", "none"], "--rounds takes a whole number"],
    [["--fast"], "--fast"],
    [["--compare", "one.json"], "--compare takes two files"],
    [["--only", "nothing"], "no scenario's name contains nothing"],
  ])("%j is refused with exit code 2 and how it is used", async (args, message) => {
    const { code, stderr } = await runBench(...args);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
    expect(stderr).toContain("bun run bench [SCENARIO …]");
  });
});
