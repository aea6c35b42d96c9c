/**
 * The store of environments with the real uv, real Pythons and small real packages from the user's index.
 * AIRLOCK_UV or PATH has to lead to uv; `findUv` says so where it doesn't.
 */
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { realpathSync } from "node:fs";
import { chmod, cp, lstat, mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EnvironmentRequest } from "../../src/server/environments/environments.ts";
import { EnvironmentStore } from "../../src/server/environments/environments.ts";
import type { FileLock } from "../../src/server/environments/file-lock.ts";
import type { EnvironmentProgress } from "../../src/server/environments/progress.ts";
import { SharedTorchMemo } from "../../src/server/environments/shared-torch-memo.ts";
import { findUv, Uv } from "../../src/server/environments/uv.ts";
import { AirlockError } from "../../src/transport/errors.ts";

// Making an environment downloads; the runner's 5 s are for tests that don't.
const patienceMs = 120_000;

let uvPath: string;
let defaultPython: string;
let directory: string;
let scratch: string;

beforeAll(async () => {
  uvPath = await findUv();
  defaultPython = (await new Uv(uvPath).run(["python", "find", "--system", "--no-project", ">=3.10,<3.14"])).trim();
}, patienceMs);

beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), "airlock-environments-"));
  directory = join(scratch, "environments");
});

afterEach(async () => {
  await rm(scratch, { recursive: true });
});

/** A lock as two processes would share it: by path. */
function sharedLock(): { lockFile: FileLock; held: () => number; taken: () => number } {
  const queues = new Map<string, Promise<void>>();
  let held = 0;
  let taken = 0;
  const lockFile: FileLock = async (path, signal) => {
    const before = queues.get(path);
    if (before !== undefined && signal.aborted) throw new AirlockError("cancelled", "somebody else holds it");
    const { promise, resolve } = Promise.withResolvers<void>();
    queues.set(path, promise);
    await before;
    held++;
    taken++;
    return {
      release: () => {
        held--;
        if (queues.get(path) === promise) queues.delete(path);
        resolve();
      },
    };
  };
  return { lockFile, held: () => held, taken: () => taken };
}

function makeStore(options: { lock?: ReturnType<typeof sharedLock>; env?: Record<string, string> } = {}) {
  const { lockFile } = options.lock ?? sharedLock();
  // No Python is downloaded here, so that a test which finds none says so at once.
  const uv = new Uv(uvPath, { env: { ...process.env, UV_PYTHON_DOWNLOADS: "never", ...options.env } });
  return new EnvironmentStore({ directory, uv, defaultPython, lockFile });
}

function requesting(...dependencies: string[]): EnvironmentRequest {
  return { pack: { name: "a-pack", file: "/a-pack/pyproject.toml", dependencies, shareTorch: false } };
}

async function runs(python: string, source: string): Promise<string> {
  const child = Bun.spawn([python, "-I", "-c", source], { stdout: "pipe", stderr: "pipe" });
  const [out, error, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) throw new Error(error);
  return out.trim();
}

/** What lies in the store beside lock files. */
async function made(): Promise<string[]> {
  return (await readdir(directory)).filter((entry) => !entry.endsWith(".lock"));
}

test(
  "an environment is made once, holds what was asked for and the worker's needs, and is used again",
  async () => {
    const progress: EnvironmentProgress[] = [];
    const store = makeStore();
    const first = await store.ensure(requesting("six==1.16.0", "iniconfig"), {
      onProgress: (told) => progress.push(told),
    });
    expect(first.fresh).toBe(true);
    expect(first.directory).toBe(join(directory, first.key));
    expect(await runs(first.python, "import six, iniconfig, msgpack; print(six.__version__)")).toBe("1.16.0");
    expect(await runs(first.python, "import sys; print(sys.prefix)")).toBe(first.directory);
    expect(await runs(first.python, "import platform; print(platform.python_version())")).toBe(first.pythonVersion);
    expect(new Set(progress.map(({ pack }) => pack))).toEqual(new Set(["a-pack"]));
    const stages = [...new Set(progress.map(({ stage }) => stage))];
    expect(stages).toEqual(expect.arrayContaining(["interpreter", "resolving", "installing", "ready"]));
    expect(stages.at(-1)).toBe("ready");

    const again = await makeStore().ensure(requesting("iniconfig", " six == 1.16.0"));
    expect(again).toEqual({ ...first, fresh: false });
    expect(await made()).toEqual([first.key]);
  },
  patienceMs,
);

test(
  "an environment's files are its own: none is a hard link into uv's cache",
  async () => {
    const { python } = await makeStore().ensure(requesting("six==1.16.0"));
    const file = await runs(python, "import six; print(six.__file__)");
    expect((await lstat(file)).nlink).toBe(1);
  },
  patienceMs,
);

test(
  "two stores on one folder make an environment once",
  async () => {
    const lock = sharedLock();
    const both = [makeStore({ lock }), makeStore({ lock })].map((store) => store.ensure(requesting("six==1.16.0")));
    const environments = await Promise.all(both);
    expect(environments.map(({ fresh }) => fresh).sort()).toEqual([false, true]);
    expect(new Set(environments.map(({ python }) => python)).size).toBe(1);
    expect(lock.taken()).toBe(2);
    expect(lock.held()).toBe(0);
    expect(await made()).toEqual([environments[0]?.key ?? ""]);
  },
  patienceMs,
);

test(
  "two packs of one store share the work, and one that gives up leaves it to the other",
  async () => {
    const lock = sharedLock();
    const store = makeStore({ lock });
    const impatient = new AbortController();
    const joined = new Set<string>();
    const onProgress = ({ pack, stage }: EnvironmentProgress) => {
      // Each looks for its Python by itself; the work that they share begins after that.
      if (stage !== "interpreter") joined.add(pack);
      if (joined.size === 2) impatient.abort();
    };
    const { pack } = requesting("six==1.16.0");
    const left = store.ensure({ pack }, { signal: impatient.signal, onProgress });
    const stayed = store.ensure({ pack: { ...pack, name: "another" } }, { onProgress });
    await expect(left).rejects.toMatchObject({ code: "cancelled", details: { pack: "a-pack" } });
    expect(await runs((await stayed).python, "import six; print(six.__version__)")).toBe("1.16.0");
    expect(lock.taken()).toBe(1);
  },
  patienceMs,
);

test(
  "a failure leaves nothing behind and tells uv's own words",
  async () => {
    const lock = sharedLock();
    const error = await makeStore({ lock })
      .ensure(requesting("six==1.16.0", "six==1.17.0"))
      .catch((thrown) => thrown);
    expect(error.code).toBe("environment_failed");
    expect(error.message).toContain('"a-pack"');
    expect(error.message).toContain("uv pip install failed");
    expect(error.details.log).toContain("six==1.16.0");
    expect(await made()).toEqual([]);
    expect(lock.held()).toBe(0);
  },
  patienceMs,
);

test.each(["resolving", "installing"])(
  "an abort while %s leaves nothing behind, and the next request makes it",
  async (when) => {
    const lock = sharedLock();
    const store = makeStore({ lock });
    const controller = new AbortController();
    const aborted = store.ensure(requesting("six==1.16.0"), {
      signal: controller.signal,
      onProgress: ({ stage }) => stage === when && controller.abort(),
    });
    await expect(aborted).rejects.toMatchObject({ code: "cancelled" });
    // The caller is told at once; the next one finds the cleaning up done.
    expect((await store.ensure(requesting("six==1.16.0"))).fresh).toBe(true);
    expect(await made()).toHaveLength(1);
    expect(lock.held()).toBe(0);
  },
  patienceMs,
);

describe("an environment is made anew", () => {
  const damages: [what: string, damage: (environment: string) => Promise<unknown>][] = [
    ["whose record is missing", (environment) => rm(join(environment, "airlock.json"))],
    ["whose record is cut short", (environment) => Bun.write(join(environment, "airlock.json"), '{"format":')],
    ["whose Python is gone", (environment) => rm(join(environment, "bin"), { recursive: true })],
    [
      "whose Python does not run",
      async (environment) => {
        await rm(join(environment, "bin/python"));
        await Bun.write(join(environment, "bin/python"), "#!/bin/sh\nexit 127\n");
        await chmod(join(environment, "bin/python"), 0o755);
      },
    ],
  ];
  test.each(damages)(
    "%s",
    async (_what, damage) => {
      const store = makeStore();
      const before = await store.ensure(requesting("six==1.16.0"));
      await damage(before.directory);
      const after = await store.ensure(requesting("six==1.16.0"));
      expect(after).toEqual(before);
      expect(await runs(after.python, "import six; print(six.__version__)")).toBe("1.16.0");
      expect(await made()).toEqual([after.key]);
    },
    patienceMs,
  );
});

test(
  "what a crashed predecessor left is removed, and what is still being made is not",
  async () => {
    const lock = sharedLock();
    const store = makeStore({ lock });
    const { directory: finished, key } = await store.ensure(requesting("six==1.16.0"));
    await rename(finished, join(directory, `.making-${key}-crashed`));
    await mkdir(join(directory, ".making-00000000000000000000-crashed"));
    await mkdir(join(directory, ".making-11111111111111111111-underway"));
    const underWay = await lock.lockFile(join(directory, "11111111111111111111.lock"), new AbortController().signal);
    expect((await store.ensure(requesting("six==1.16.0"))).fresh).toBe(true);
    expect((await made()).sort()).toEqual([".making-11111111111111111111-underway", key]);
    underWay.release();
  },
  patienceMs,
);

test(
  "a Python that is not here and may not be downloaded is asked for by name",
  async () => {
    // uv sees no Python but the default one, of which no release has this number.
    const store = makeStore({ env: { PATH: scratch, UV_PYTHON_INSTALL_DIR: scratch } });
    const { pack } = requesting();
    const error = await store.ensure({ pack: { ...pack, requiresPython: "==3.12.99" } }).catch((thrown) => thrown);
    expect(error).toMatchObject({ code: "environment_failed", details: { pack: "a-pack" } });
    expect(error.message).toContain("==3.12.99 (requires-python, in /a-pack/pyproject.toml)");
    expect(error.details.hint).toContain("AIRLOCK_PYTHON");
    expect(await made()).toEqual([]);
  },
  patienceMs,
);

describe("a pack that shares its host's torch", () => {
  /** A host's environment with a torch that is only metadata, and the `iniconfig` that it requires. */
  async function hostWith(torchVersion: string | undefined): Promise<{ python: string; sitePackages: string }> {
    const host = join(scratch, "host");
    const uv = new Uv(uvPath);
    await uv.run(["venv", "--no-project", "--python", defaultPython, host]);
    const python = join(host, "bin/python");
    const sitePackages = await runs(python, "import sysconfig; print(sysconfig.get_path('purelib'))");
    if (torchVersion === undefined) return { python, sitePackages };
    await uv.run(["pip", "install", "--python", python, "iniconfig==2.0.0"]);
    const info = join(sitePackages, `torch-${torchVersion}.dist-info`);
    await Bun.write(join(sitePackages, "torch/__init__.py"), 'raise RuntimeError("the probe imported torch")\n');
    await Bun.write(
      join(info, "METADATA"),
      `Metadata-Version: 2.1\nName: torch\nVersion: ${torchVersion}\nRequires-Dist: iniconfig<=2.0.0\n` +
        'Requires-Dist: absent-here; sys_platform == "win32"\nRequires-Dist: six; extra == "all"\n',
    );
    await Bun.write(join(info, "RECORD"), "torch/__init__.py,,\n");
    return { python, sitePackages };
  }

  function sharing(hostPython: string, ...dependencies: string[]): EnvironmentRequest {
    return { pack: { ...requesting(...dependencies).pack, shareTorch: true }, hostPython };
  }

  test(
    "gets none of its own, though it and what it requires ask for one, and the rest to suit the host's",
    async () => {
      const host = await hostWith("2.8.0+cpu");
      const environment = await makeStore().ensure(sharing(host.python, "torch>=2", "torch-ema==0.3", "iniconfig"));
      expect(environment.sharedTorch).toEqual({
        version: "2.8.0+cpu",
        python: environment.pythonVersion.split(".").slice(0, 2).join("."),
        executable: realpathSync(host.python),
        state: expect.any(String),
        sitePackages: host.sitePackages,
        locations: [host.sitePackages],
        modules: ["iniconfig", "torch"],
        distributions: ["iniconfig", "torch"],
        requirements: ['absent-here; sys_platform == "win32"', "iniconfig<=2.0.0"],
      });
      const installed = await runs(
        environment.python,
        "import importlib.metadata as m; print(sorted(d.name.lower() for d in m.distributions()))",
      );
      expect(installed).toBe("['iniconfig', 'msgpack', 'torch-ema']");
      const version = "import importlib.metadata as m; print(m.version('iniconfig'))";
      expect(await runs(environment.python, version)).toBe("2.0.0");
    },
    patienceMs,
  );

  test(
    "is told the host's as long as nothing is installed there, which is asked for once, and then what there is by then",
    async () => {
      const { python, sitePackages } = await hostWith("2.8.0");
      const memo = new SharedTorchMemo();
      const options = { variables: process.env };
      const [first, other] = await Promise.all([memo.probe(python, options), memo.probe(python, options)]);
      expect([first.version, other]).toEqual(["2.8.0", first]);
      expect(await memo.probe(python, options)).toBe(first);
      await cp(join(sitePackages, "torch-2.8.0.dist-info"), join(sitePackages, "torch-2.9.0.dist-info"), {
        recursive: true,
      });
      await rm(join(sitePackages, "torch-2.8.0.dist-info"), { recursive: true });
      await Bun.write(join(sitePackages, "torch-2.9.0.dist-info/METADATA"), "Name: torch\nVersion: 2.9.0\n");
      expect((await memo.probe(python, options)).version).toBe("2.9.0");
    },
    patienceMs,
  );

  test(
    "is refused where the host has none, or did not say which Python it runs on",
    async () => {
      const { python } = await hostWith(undefined);
      await expect(makeStore().ensure(sharing(python))).rejects.toThrow("has no torch");
      const { pack } = sharing(python);
      await expect(makeStore().ensure({ pack })).rejects.toThrow("did not name its Python");
    },
    patienceMs,
  );

  test(
    "is refused where it needs another minor version of Python than the host",
    async () => {
      const { python } = await hostWith("2.8.0");
      const { pack } = sharing(python);
      const minor = (await runs(python, "import sys; print(sys.version_info[1])")) === "12" ? 11 : 12;
      const asked = { pack: { ...pack, requiresPython: `==3.${minor}.*` }, hostPython: python };
      await expect(makeStore().ensure(asked)).rejects.toThrow("same Python minor required");
    },
    patienceMs,
  );
});
