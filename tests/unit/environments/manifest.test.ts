import { afterEach, describe, expect, test } from "bun:test";
import { mkdtemp, realpath, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { checkGivenManifest, loadManifest, packKey } from "../../../src/server/environments/manifest.ts";
import type { AirlockError } from "../../../src/transport/errors.ts";

const folders: string[] = [];

afterEach(async () => {
  await Promise.all(folders.splice(0).map((folder) => rm(folder, { recursive: true })));
});

/** A pack's folder with these files. */
async function pack(files: Record<string, string | Uint8Array>): Promise<string> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), "airlock-manifest-")));
  folders.push(folder);
  for (const [name, content] of Object.entries(files)) await Bun.write(join(folder, name), content);
  return folder;
}

async function failure(folder: string): Promise<AirlockError> {
  const error = await loadManifest(folder).then(
    () => undefined,
    (thrown: AirlockError) => thrown,
  );
  if (error === undefined) throw new Error("the manifest was accepted");
  expect(error.code).toBe("manifest_invalid");
  expect(error.details.pack).toBe(basename(folder));
  return error;
}

const asks = "[tool.comfy.isolation]\ncan_isolate = true\n";

test("a pyproject.toml is read from both of its tables", async () => {
  const folder = await pack({
    "pyproject.toml": `
      [project]
      name = "my-pack"
      version = "1.0"
      requires-python = ">=3.11"
      dependencies = ["six==1.16.0", "numpy"]
      [tool.other]
      x = 1
      [tool.comfy.isolation]
      can_isolate = true
      share_torch = true
      dependencies = ["iniconfig", "numpy"]
      env = { MODE = "fast" }`,
  });
  expect(await loadManifest(folder)).toEqual({
    name: "my-pack",
    folder,
    file: join(folder, "pyproject.toml"),
    dependencies: ["six==1.16.0", "numpy", "iniconfig"],
    requiresPython: ">=3.11",
    shareTorch: true,
    env: { MODE: "fast" },
    workers: 1,
    freshProcess: false,
    privateMemory: false,
    nodes: {},
    limits: {},
    warnings: [],
  });
});

test("a pyisolate.yaml is read, and a pyproject.toml that does not ask is left alone", async () => {
  const folder = await pack({
    "pyisolate.yaml": 'isolated: true\ndependencies: [six]\npython: "3.12"\nenv: {A: "1"}\npackage_manager: uv\n',
    "pyproject.toml": '[project]\nname = "other"\ndependencies = ["numpy"]\n',
  });
  expect(await loadManifest(folder)).toEqual({
    name: basename(folder),
    folder,
    file: join(folder, "pyisolate.yaml"),
    dependencies: ["six"],
    requiresPython: "==3.12.*",
    shareTorch: false,
    env: { A: "1" },
    workers: 1,
    freshProcess: false,
    privateMemory: false,
    nodes: {},
    limits: {},
    warnings: [],
  });
});

test("what is said of its workers and nodes is read alike from both files", async () => {
  const running = { workers: 4, freshProcess: true, idleTimeoutMs: 1_500 };
  const nodes = { Blur: { idempotent: true, sticky: false }, Load: { idempotent: false, sticky: true } };
  const yaml = await pack({
    "pyisolate.yaml": [
      "isolated: true",
      "workers: 4",
      "fresh_process: true",
      "idle_timeout: 1.5",
      "nodes: {Blur: {idempotent: true}, Load: {sticky: true}}",
    ].join("\n"),
  });
  const toml = await pack({
    "pyproject.toml": `
      [tool.comfy.isolation]
      can_isolate = true
      workers = 4
      fresh_process = true
      idle_timeout = 1.5
      [tool.comfy.isolation.nodes]
      Blur = { idempotent = true }
      Load = { sticky = true }`,
  });
  for (const folder of [yaml, toml]) expect(await loadManifest(folder)).toMatchObject({ ...running, nodes });
});

test.each([
  ["", false],
  ["private_memory: false", false],
  ["private_memory: true", true],
  ["sandbox: {network: false}", true],
  ["sandbox: {network: false}\nprivate_memory: false", true],
  ["sandbox: false", false],
  ["sandbox_mode: disabled", false],
])("a pack that says %p has private memory: %p", async (lines, expected) => {
  const manifest = await loadManifest(await pack({ "pyisolate.yaml": `isolated: true\n${lines}\n` }));
  expect(manifest.privateMemory).toBe(expected);
});

test.each([
  ["workers: 0", "workers must be a whole number from 1 to 64"],
  ["workers: 1.5", "workers must be a whole number from 1 to 64"],
  ["workers: many", 'workers must be a whole number from 1 to 64, not "many"'],
  ["private_memory: yes please", "private_memory must be true or false"],
  ["idle_timeout: 0", "idle_timeout must be a number of seconds above 0"],
  ["idle_timeout: .inf", "idle_timeout must be a number of seconds above 0"],
  ["fresh_process: 1", "fresh_process must be true or false, not 1"],
  ["nodes: [Blur]", "nodes must be a table of nodes, not a list"],
  ["nodes: {Blur: true}", "nodes.Blur must be a table of what the node allows, not true"],
  ["nodes: {Blur: {stateful: true}}", "nodes.Blur.stateful is not known of a node; the keys are idempotent, sticky"],
  ["nodes: {Blur: {sticky: 1}}", "nodes.Blur.sticky must be true or false, not 1"],
])("%p is refused by name", async (line, reason) => {
  const folder = await pack({ "pyisolate.yaml": `isolated: true\n${line}\n` });
  const error = await loadManifest(folder).then(
    () => undefined,
    (thrown) => thrown as AirlockError,
  );
  expect([error?.code, error?.message]).toEqual(["manifest_invalid", expect.stringContaining(reason)]);
});

test("limits are read in the units that they are counted in, each with where it is set", async () => {
  const yaml = await pack({
    "pyisolate.yaml":
      "isolated: true\nlimits: {call_timeout: 1.5, memory: 8GiB, processes: 4, open_files: 256, cpus: 2.5}\n",
  });
  const { limits } = await loadManifest(yaml);
  expect(Object.entries(limits).map(([name, limit]) => [name, limit?.value])).toEqual([
    ["memory", 8 * 2 ** 30],
    ["processes", 4],
    ["open_files", 256],
    ["cpus", 2.5],
    ["call_timeout", 1500],
  ]);
  expect(limits.memory?.source).toBe(`limits.memory in ${join(yaml, "pyisolate.yaml")}`);
  const toml = await pack({ "pyproject.toml": `${asks}[tool.comfy.isolation.limits]\nmemory = "512 MB"\n` });
  expect((await loadManifest(toml)).limits).toEqual({
    memory: { value: 512e6, source: `tool.comfy.isolation.limits.memory in ${join(toml, "pyproject.toml")}` },
  });
});

test("the folder is resolved, so that a pack is one whatever link leads to it", async () => {
  const folder = await pack({ "pyproject.toml": asks });
  const link = join(await pack({}), "link");
  await symlink(folder, link);
  expect((await loadManifest(link)).folder).toBe(folder);
});

describe("a folder is refused", () => {
  test("that does not exist", async () => {
    expect((await failure("/nonexistent/pack")).message).toContain("does not exist");
  });

  test("that is a file", async () => {
    const folder = await pack({ file: "" });
    expect((await failure(join(folder, "file"))).message).toContain("is not a folder");
  });

  test("that has no manifest", async () => {
    const error = await failure(await pack({}));
    expect(error.message).toContain("no manifest");
    expect(error.details.hint).toContain("can_isolate = true");
  });

  test("that has two, naming both", async () => {
    const { message } = await failure(await pack({ "pyproject.toml": asks, "pyisolate.yaml": "name: x" }));
    expect(message).toContain("pyisolate.yaml");
    expect(message).toContain("pyproject.toml");
  });
});

describe("a pack that does not ask is told how to", () => {
  test.each([
    ["no table", { "pyproject.toml": '[project]\nname = "x"\n' }],
    ["an empty table", { "pyproject.toml": "[tool.comfy.isolation]\n" }],
    ["can_isolate = false", { "pyproject.toml": "[tool.comfy.isolation]\ncan_isolate = false\n" }],
    ["isolated: false", { "pyisolate.yaml": "isolated: false\n" }],
  ])("%s", async (_what, files) => {
    const error = await failure(await pack(files));
    expect(error.message).toContain("does not ask to be isolated");
    expect(error.details.hint).toContain("can_isolate = true");
  });
});

describe("pyisolate.yaml is refused with key and reason:", () => {
  test.each([
    ["a word for limits", "limits: 8GiB", 'limits must be a table of limits, not "8GiB"'],
    ["memory in no unit", "limits: {memory: 8G}", 'limits.memory must be bytes or a text such as "8GiB", not "8G"'],
    [
      "memory in the wrong unit",
      "limits: {memory: 8}",
      "limits.memory is 8 B; a worker alone takes more: at least 32 MiB",
    ],
    ["memory beyond numbers", "limits: {memory: .inf}", "limits.memory must be bytes"],
    ["a list for memory", "limits: {memory: [1]}", "limits.memory must be bytes"],
    ["no time", "limits: {call_timeout: 0}", "limits.call_timeout must be a number of seconds, at most 4294967"],
    ["too much time", "limits: {call_timeout: 1e9}", "limits.call_timeout must be a number of seconds"],
    [
      "time in words",
      "limits: {call_timeout: 30s}",
      'limits.call_timeout must be a number of seconds, at most 4294967, not "30s"',
    ],
    ["half a process", "limits: {processes: 1.5}", "limits.processes must be a whole number of processes, 1 to"],
    ["too few files", "limits: {open_files: 3}", "limits.open_files must be a whole number of descriptors, 32 to"],
    ["no CPU", "limits: {cpus: 0}", "limits.cpus must be a number of CPUs, 0.01 to"],
    ["an unknown limit", "limits: {cpu: 1}", "limits.cpu is not a known key; did you mean limits.cpus?"],
    ["an option", "dependencies: [six, --index-url x]", "dependencies[1] is an option"],
    ["a number", "dependencies: [1.5]", "dependencies[0] must be a string, not 1.5; put it in quotes"],
    ["a string for a list", "dependencies: six", 'dependencies must be a list of requirements, not "six"'],
    ["nothing for a list", "dependencies:", "dependencies must be a list of requirements, not empty"],
    ["an unquoted version", "python: 3.10", "python must be a string, not 3.1; put it in quotes"],
    ["a strange version", 'requires_python: "^3.10"', 'requires_python holds "^3.10"'],
    ["a word for a boolean", 'share_torch: "yes"', 'share_torch must be true or false, not "yes"'],
    ["an unquoted variable", "env: {A: 1}", "env.A must be a string, not 1; put it in quotes"],
    ["a blank name", 'name: " "', "name must have 1 to 200 characters"],
    ["a misspelt key", "dependancies: [six]", "dependancies is not a known key; did you mean dependencies?"],
    ["a foreign key", "frobnicate: 1", "frobnicate is not a known key; the keys are"],
    ["conda", "package_manager: conda", 'package_manager is "conda"'],
    ["another package manager", "package_manager: pip", 'package_manager must be "uv" or "conda", not "pip"'],
    ["a required sandbox", "sandbox_mode: required", 'sandbox_mode is "required"'],
    ["a sealed worker", "execution_model: sealed_worker", 'execution_model is "sealed_worker"'],
    ["more indexes", "extra_index_urls: [https://example.invalid]", "extra_index_urls is not supported"],
    ["wheels for CUDA", "cuda_wheels: {packages: [x]}", "cuda_wheels is not supported"],
    ["a list at the top", "- six", "must hold one table"],
    ["nothing at all", "", "must hold one table"],
    ["two documents", "name: a\n---\nname: b", "must hold one table"],
    ["broken syntax", "a: [", "YAML"],
  ])("%s", async (_what, source, reason) => {
    const folder = await pack({ "pyisolate.yaml": source });
    const { message } = await failure(folder);
    expect(message).toContain(join(folder, "pyisolate.yaml"));
    expect(message).toContain(reason);
  });
});

describe("pyproject.toml is refused with key and reason:", () => {
  test.each([
    ["an option", `[project]\ndependencies = ["-e ."]\n${asks}`, "project.dependencies[0] is an option"],
    ["a bad version", `[project]\nrequires-python = "3"\n${asks}`, 'project.requires-python holds "3"'],
    ["hidden dependencies", `[project]\ndynamic = ["dependencies"]\n${asks}`, "project.dynamic names"],
    ["a misspelt key", `${asks}share_troch = true\n`, "did you mean tool.comfy.isolation.share_torch?"],
    ["a misspelt limit", `${asks}limits = { memroy = 1 }\n`, "did you mean tool.comfy.isolation.limits.memory?"],
    ["a word for a table", `[tool.comfy]\nisolation = "yes"\n`, "tool.comfy.isolation must be a table"],
    ["conda", `${asks}package_manager = "conda"\n`, 'tool.comfy.isolation.package_manager is "conda"'],
    ["broken syntax", "[project\n", "TOML"],
  ])("%s", async (_what, source, reason) => {
    expect((await failure(await pack({ "pyproject.toml": source }))).message).toContain(reason);
  });
});

test("all problems of a file are reported at once", async () => {
  const { message } = await failure(
    await pack({
      "pyproject.toml": `[project]\nname = ""\ndependencies = ["-x", "six", ""]\n${asks}shared = 1\nshare_torch = 1\n`,
    }),
  );
  expect(message).toContain("has 5 problems");
  for (const key of ["project.name", "project.dependencies[0]", "project.dependencies[2]", "shared", "share_torch"]) {
    expect(message).toContain(key);
  }
});

test("keys that have no effect are warned of by name, and only where they ask for something", async () => {
  const { warnings } = await loadManifest(
    await pack({
      "pyisolate.yaml":
        "share_cuda_ipc: true\nsandbox: {network: false}\nconda_channels: []\napis: [x]\nextra_index_urls: []\n",
    }),
  );
  expect(warnings.map((warning) => warning.split(" ")[0]).sort()).toEqual(["apis", "sandbox", "share_cuda_ipc"]);
});

test("a pack that lists its needs in requirements.txt only is warned", async () => {
  const { warnings } = await loadManifest(await pack({ "pyproject.toml": asks, "requirements.txt": "six\n" }));
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toContain("requirements.txt is not read");
});

test("a manifest of the largest size is read, one byte more is refused", async () => {
  const filled = (bytes: number) => asks + "#".repeat(bytes - asks.length);
  expect((await loadManifest(await pack({ "pyproject.toml": filled(256 * 1024) }))).shareTorch).toBe(false);
  expect((await failure(await pack({ "pyproject.toml": filled(256 * 1024 + 1) }))).message).toContain("larger than");
});

test("a manifest that is no UTF-8 text is refused", async () => {
  expect((await failure(await pack({ "pyisolate.yaml": new Uint8Array([0x6e, 0xff, 0xfe]) }))).message).toContain(
    "UTF-8",
  );
});

test("a named pipe in the manifest's place is refused instead of waited for", async () => {
  const folder = await pack({});
  Bun.spawnSync(["mkfifo", join(folder, "pyisolate.yaml")]);
  expect((await failure(folder)).message).toContain("not a regular file");
});

test("a key of a table's prototype is not taken for the manifest's", async () => {
  expect((await failure(await pack({ "pyisolate.yaml": "constructor: 1\n" }))).message).toContain("not a known key");
});

test.each<[string, string, string, string]>([
  ["a name", "pyisolate.yaml", 'isolated: true\nname: "half \\ud83d"\n', "YAML Parse error"],
  ["a key", "pyisolate.yaml", 'isolated: true\n"half \\ud83d": 1\n', "YAML Parse error"],
  ["a pyproject.toml", "pyproject.toml", `${asks}name = "\\udca9"\n`, "TOML Parse error"],
])(
  "half a surrogate pair in %s is refused, because it could not be told to anybody",
  async (_, file, source, words) => {
    expect((await failure(await pack({ [file]: source }))).message).toContain(words);
  },
);

test("a manifest of aliases upon aliases is refused", async () => {
  const levels = Array.from({ length: 40 }, (_, level) => `a${level + 1}: &a${level + 1} [*a${level}, *a${level}]`);
  const source = `isolated: true\na0: &a0 [x]\n${levels.join("\n")}\n`;
  expect((await failure(await pack({ "pyisolate.yaml": source }))).message).toContain("Excessive aliasing");
});

describe("a manifest that the host gives", () => {
  test("stands in place of the files in the folder", async () => {
    const folder = await pack({ "pyproject.toml": `[project]\nname = "in-the-file"\n${asks}` });
    const table = { isolated: true, name: "given", dependencies: ["six==1.16.0"], share_torch: true, env: { A: "1" } };
    expect(await checkGivenManifest(folder, table)).toMatchObject({
      name: "given",
      folder,
      dependencies: ["six==1.16.0"],
      shareTorch: true,
      env: { A: "1" },
      isGiven: true,
    });
  });

  test("is checked as a file is, and errors name it and the key", async () => {
    const folder = await pack({});
    const refused = checkGivenManifest(folder, { isolated: true, sandbox_mode: "required", dependencys: [] });
    const { code, message } = (await refused.catch((error: AirlockError) => error)) as AirlockError;
    expect(code).toBe("manifest_invalid");
    for (const part of ["the manifest that its host gave", "sandbox_mode", "dependencys"])
      expect(message).toContain(part);
  });

  test("makes packs of one folder that are told from each other by their names", async () => {
    const folder = await pack({ "pyproject.toml": asks });
    const [a, b] = [await checkGivenManifest(folder, { name: "a" }), await checkGivenManifest(folder, { name: "b" })];
    const keys = [packKey(a), packKey(b), packKey(await loadManifest(folder)), packKey(await loadManifest(folder))];
    expect(new Set(keys).size).toBe(3);
    expect(keys[2]).toBe(keys[3] ?? "");
  });
});
