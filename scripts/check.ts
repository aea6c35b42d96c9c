/**
 * All static checks, one command: `bun run check`. Each tool's rules are in its own file at the top level.
 */
import { join } from "node:path";
import { makeTestEnvironment } from "./python.ts";
import { root, runStep, type Tally } from "./steps.ts";

/** Runs every check, also after one has failed. */
export async function runChecks(): Promise<Tally> {
  const environment = await makeTestEnvironment();
  const bin = (name: string): string => join(environment, "bin", name);
  const tool = (name: string): string => join(root, "node_modules", ".bin", name);
  const bun = process.execPath;
  const python = ["worker", "packs", "examples", "bench", "tests", "src"];
  const checks: readonly (readonly [string, readonly string[]])[] = [
    ["biome: format, lint, cycles, layers", [tool("biome"), "check", "--error-on-warnings", "."]],
    ["tsc: types of TypeScript", [tool("tsc"), "--noEmit"]],
    ["knip: unused files, exports, dependencies", [bun, tool("knip")]],
    ["ruff: lint of Python", [bin("ruff"), "check", ...python]],
    ["ruff: format of Python", [bin("ruff"), "format", "--check", ...python]],
    ["pyright: types of Python", [bun, tool("pyright"), "--pythonpath", bin("python")]],
    ["import-linter: layers of Python", [bin("lint-imports"), "--no-cache"]],
  ];
  const failures: string[] = [];
  for (const [title, command] of checks) {
    const succeeded = await runStep(title, command, { env: { PYTHONPATH: join(root, "worker", "src") } });
    if (!succeeded) failures.push(title);
  }
  return { passed: checks.length - failures.length, failed: failures.length, skipped: 0, failures };
}

if (import.meta.main) {
  const { failed } = await runChecks();
  process.exit(failed === 0 ? 0 : 1);
}
