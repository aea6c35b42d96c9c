/**
 * A host's torch that is imported before a pack asks for it, by a server that is told whose or by a launch: a torch of a few
 * lines, which writes down who imported it.
 */
import { expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ServerEvent } from "../../src/server/events.ts";
import { runAirlock } from "./processes.ts";
import { isAlive, root, until, useWorld } from "./support.ts";

const world = useWorld();

interface Host {
  readonly python: string;
  /** Where torch writes who imported it. */
  readonly importedBy: string;
}

/** A host's environment, with torch or without. */
async function host({ hasTorch }: { hasTorch: boolean }): Promise<Host> {
  const folder = join(world.folder, "host");
  const made = Bun.spawn([join(root, ".venv", "bin", "python"), "-m", "venv", "--without-pip", folder]);
  expect(await made.exited).toBe(0);
  const importedBy = join(folder, "imported-by");
  if (hasTorch) {
    const [version = ""] = readdirSync(join(folder, "lib"));
    const packages = join(folder, "lib", version, "site-packages");
    const info = join(packages, "torch-2.13.0.dist-info");
    for (const each of [join(packages, "torch"), info]) mkdirSync(each);
    // Under another name until it is whole.
    const write = `import os\nwith open(${JSON.stringify(`${importedBy}~`)}, "w") as file: file.write(str(os.getpid()))`;
    const rename = `os.rename(file.name, ${JSON.stringify(importedBy)})`;
    writeFileSync(join(packages, "torch", "__init__.py"), `${write}\n${rename}\n`);
    writeFileSync(join(info, "METADATA"), "Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\n");
    writeFileSync(join(info, "RECORD"), "torch/__init__.py,,\n");
  }
  return { python: join(folder, "bin", "python"), importedBy };
}

test("a server that is told whose torch has it imported, for as long as it runs", async () => {
  const { python, importedBy } = await host({ hasTorch: true });
  const server = await world.serve({ torchOf: python });
  await until(() => existsSync(importedBy), "torch is imported");
  const process = Number(readFileSync(importedBy, "utf8"));
  expect(isAlive(process)).toBe(true);
  await server.stop();
  expect(isAlive(process)).toBe(false);
});

test.each([
  ["has none", async () => (await host({ hasTorch: false })).python, "has no torch"],
  ["is not there", async () => "/nowhere/python", "/nowhere/python"],
])("of a Python that %s, an event says so, and the server goes on", async (_, pythonOf, reason) => {
  const events: ServerEvent[] = [];
  const python = await pythonOf();
  const server = await world.serve({ torchOf: python, onEvent: (event) => void events.push(event) });
  const isTold = () => events.find((event) => event.type === "torch_not_imported");
  await until(() => isTold() !== undefined, "it is told");
  expect(isTold()).toEqual({ type: "torch_not_imported", python, reason: expect.stringContaining(reason) });
  expect((await (await world.connect(server)).status()).packs).toEqual([]);
});

test("a launched Python's torch is imported beside it", async () => {
  const { python, importedBy } = await host({ hasTorch: true });
  const main = join(world.folder, "main.py");
  const waits = `while not os.path.exists(${JSON.stringify(importedBy)}): time.sleep(0.01)`;
  writeFileSync(
    main,
    `import os, time\n${waits}\nprint(open(${JSON.stringify(importedBy)}).read() != str(os.getpid()))\n`,
  );
  const { code, stdout, stderr } = await runAirlock(["launch", "--", python, main], world);
  expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: "True\n", stderr: "" });
  expect(isAlive(Number(readFileSync(importedBy, "utf8")))).toBe(false);
});
