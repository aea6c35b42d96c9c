/** Workers on every supported Python that this machine has. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Complex, FrozenSet, Named, Tuple } from "../../src/index.ts";
import { pickInterpreter } from "../../src/server/environments/interpreter.ts";
import { findUv, Uv } from "../../src/server/environments/uv.ts";
import { packs, useWorld } from "./support.ts";

const world = useWorld();
const minors = [10, 11, 12, 13] as const;

/** Why there is no such Python here; undefined where there is one. Downloads nothing. */
async function missing(minor: number): Promise<string | undefined> {
  const scratch = mkdtempSync(join(tmpdir(), "air-"));
  const uv = new Uv(await findUv(), { env: { ...process.env, UV_PYTHON_DOWNLOADS: "never" } });
  const request = { pack: "probe", file: "test", requiresPython: `==3.${minor}.*`, defaultPython: `python3.${minor}` };
  try {
    await pickInterpreter(request, { uv, scratch });
    return undefined;
  } catch {
    return `there is no Python 3.${minor} on this machine`;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

const absent = new Map(await Promise.all(minors.map(async (minor) => [minor, await missing(minor)] as const)));

describe("a worker on Python", () => {
  for (const minor of minors) {
    const reason = absent.get(minor);
    const name = `3.${minor} answers with every kind of value, raises, and awaits`;
    // Skipped where this machine has no such Python; the name then says so.
    test.skipIf(reason !== undefined)(reason === undefined ? name : `${name} (skipped: ${reason})`, async () => {
      const folder = join(world.folder, "pack");
      const init = JSON.stringify(join(packs, "probe", "nodes.py"));
      await Bun.write(join(folder, "__init__.py"), `exec(compile(open(${init}).read(), ${init}, "exec"))\n`);
      writeFileSync(
        join(folder, "pyisolate.yaml"),
        `isolated: true\nrequires_python: "==3.${minor}.*"\ndependencies: []\n`,
      );
      const { airlock } = await world.probe();
      const pack = await airlock.open(folder);
      expect(((await pack.describe()) as { python: string }).python).toStartWith(`3.${minor}.`);
      const value = {
        tuple: Tuple.of<unknown>(1, Tuple.of("a")),
        sets: [new Set([1]), new FrozenSet(["x"])],
        numbers: [1.5, 2n ** 70n, new Complex(1, 2)],
        moment: new Named("datetime", "2026-01-02T03:04:05.000678+05:45"),
        path: new Named("path", "/a/b"),
      };
      expect(await pack.call("Echo", { value })).toEqual(Tuple.of<unknown>(value));
      expect(await pack.call("AsyncEcho", { value: 7 })).toEqual(Tuple.of(7));
      const error = await pack.call("Raise", { message: "boom", own: true }).catch((thrown: unknown) => thrown);
      expect((error as { details: { exception: { args: unknown } } }).details.exception.args).toEqual(["boom", 7]);
    });
  }
});
