/** Workers on every supported Python that this machine has. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Complex, FrozenSet, Named, NdArray, type Pack, Tuple } from "../../src/index.ts";
import { pickInterpreter } from "../../src/server/environments/interpreter.ts";
import { findUv, Uv } from "../../src/server/environments/uv.ts";
import { packs, useWorld } from "./support.ts";

const world = useWorld();
/** Of an array and of the bytes that are sent. */
const size = 1024 * 1024;
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

/** What the pack of other tests requires, so that its environment serves here too, where the Python is the same. */
async function numpyRequirements(): Promise<readonly string[]> {
  const manifest = Bun.TOML.parse(await Bun.file(join(packs, "arrays", "pyproject.toml")).text());
  return (manifest as { project: { dependencies: string[] } }).project.dependencies;
}

/** A pack with the probe's nodes, on a Python of this minor version. */
async function newPack(minor: number, dependencies: readonly string[]): Promise<string> {
  const folder = join(world.folder, "pack");
  const init = JSON.stringify(join(packs, "probe", "nodes.py"));
  await Bun.write(join(folder, "__init__.py"), `exec(compile(open(${init}).read(), ${init}, "exec"))\n`);
  writeFileSync(
    join(folder, "pyisolate.yaml"),
    `isolated: true\nrequires_python: "==3.${minor}.*"\ndependencies: ${JSON.stringify(dependencies)}\n`,
  );
  return folder;
}

async function expectPython(pack: Pack, minor: number): Promise<void> {
  expect(((await pack.describe()) as { python: string }).python).toStartWith(`3.${minor}.`);
}

describe("a worker on Python", () => {
  for (const minor of minors) {
    const reason = absent.get(minor);
    const named = (name: string) => (reason === undefined ? name : `${name} (skipped: ${reason})`);

    // Skipped where this machine has no such Python; the name then says so.
    test.skipIf(reason !== undefined)(
      named(`3.${minor} answers with every kind of value, raises, and awaits`),
      async () => {
        const { airlock } = await world.probe();
        const pack = await airlock.open(await newPack(minor, []));
        await expectPython(pack, minor);
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
      },
    );

    // Skipped where this machine has no such Python; the name then says so.
    test.skipIf(reason !== undefined)(
      named(`3.${minor} takes arrays and bytes by lease, and answers with them by lease`),
      async () => {
        const airlock = await world.connect(await world.serve());
        const pack = await airlock.open(await newPack(minor, await numpyRequirements()));
        await expectPython(pack, minor);
        const elements = new Float32Array(size / 4).map((_, index) => index % 1000);
        const array = new NdArray("ndarray", "float32", [512, 512], new Uint8Array(elements.buffer));
        const bytes = new Uint8Array(size).map((_, index) => index % 251);
        const [back] = (await pack.call("Echo", { value: { array, bytes } })) as [
          { array: NdArray; bytes: Uint8Array },
        ];
        const { kind, dtype, shape, order } = back.array;
        expect({ kind, dtype, shape, order }).toEqual({
          kind: "ndarray",
          dtype: "float32",
          shape: [512, 512],
          order: "C",
        });
        expect(Buffer.compare(back.array.data, array.data)).toBe(0);
        expect(Buffer.compare(back.bytes, bytes)).toBe(0);
        const { hosts, packs: opened } = await airlock.stats();
        const memory = opened[0]?.workers[0]?.health?.memory;
        // The array went home as the host's own block, which the worker had a lease of; bytes are the worker's copy.
        expect([memory?.forwarded_bytes, memory?.copied_bytes, memory?.segments]).toEqual([size, size, 1]);
        expect(hosts.map(({ segments }) => segments)).toEqual([1]);
      },
    );
  }
});
