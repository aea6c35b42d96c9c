/** Servers that know nothing of each other, on one folder of environments. */
import { expect, test } from "bun:test";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { until, useWorld } from "./support.ts";

const world = useWorld();

function packWith(dependency: string): string {
  const folder = join(world.folder, "pack");
  mkdirSync(folder);
  writeFileSync(join(folder, "pyisolate.yaml"), `isolated: true\ndependencies: ["${dependency}"]\n`);
  return folder;
}

function prepare(pack: string) {
  const command = [process.execPath, join(import.meta.dir, "prepare.ts"), world.folder, pack];
  return Bun.spawn(command, { env: world.variables(), stdio: ["ignore", "pipe", "pipe"] });
}

function environments(): string[] {
  return readdirSync(join(world.folder, "environments")).filter((name) => !name.endsWith(".lock"));
}

test("three at once make an environment once, and all use it", async () => {
  const pack = packWith("six==1.16.0");
  const children = [prepare(pack), prepare(pack), prepare(pack)];
  const said = await Promise.all(children.map(async (child) => JSON.parse(await new Response(child.stdout).text())));
  expect(said.filter((each) => each.fresh).length).toBe(1);
  expect(new Set(said.map((each) => each.python)).size).toBe(1);
  expect(environments().length).toBe(1);
});

test("one that is killed while it makes an environment leaves the next one to make it, and to clean up", async () => {
  const pack = packWith("numpy==2.2.6");
  const first = prepare(pack);
  await until(
    () =>
      readdirSync(world.folder).includes("environments") && environments().some((name) => name.startsWith(".making-")),
    "the first one is making it",
  );
  first.kill("SIGKILL");
  await first.exited;
  const second = prepare(pack);
  expect(JSON.parse(await new Response(second.stdout).text()).fresh).toBe(true);
  expect(environments().filter((name) => name.startsWith("."))).toEqual([]);
  expect(environments().length).toBe(1);
});
