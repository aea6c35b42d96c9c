/** The examples of the README run as they stand. */
import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { root, useWorld } from "./support.ts";

const world = useWorld();

async function run(command: readonly string[], env: Record<string, string>) {
  const child = Bun.spawn([...command], {
    cwd: root,
    env: { ...world.variables(), ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { code: await child.exited, stdout, stderr };
}

test("the launcher in Bun", async () => {
  const { code, stdout, stderr } = await run([process.execPath, "examples/launcher.ts"], {
    AIRLOCK_SOCKET: world.socket,
  });
  expect(stderr).toContain("worker_started");
  expect(stdout).toContain("1 × 64 × 64 × 3");
  expect(code).toBe(0);
}, 120_000);

test("the host in Python", async () => {
  const airlock = join(world.folder, "airlock");
  writeFileSync(airlock, `#!/bin/sh\nexec node ${join(root, "bin", "airlock.mjs")} "$@"\n`, { mode: 0o755 });
  const python = join(root, ".venvs", "test", "bin", "python");
  const env = { AIRLOCK_BIN: airlock, AIRLOCK_SOCKET: "", PYTHONPATH: join(root, "worker", "src") };
  const { code, stdout } = await run([python, "examples/host.py"], env);
  expect(stdout).toContain("and two more, from an event loop: (1, 64, 64, 3), (1, 64, 64, 3)");
  expect(code).toBe(0);
}, 120_000);
