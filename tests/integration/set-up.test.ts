/** What `npm start` and `npm test` do before there is a Bun: with doubles for npm, Python and Bun on PATH. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { makeEnvironment } from "../../scripts/python.ts";
import { root } from "./support.ts";

const node = Bun.which("node") ?? "node";

let clone: string;
let path: string;

beforeEach(() => {
  const folder = mkdtempSync(join(tmpdir(), "air-"));
  clone = join(folder, "clone");
  path = join(folder, "path");
  mkdirSync(path);
  for (const part of ["bin", "package.json", "bun.lock", "requirements"]) {
    cpSync(join(root, part), join(clone, part), { recursive: true });
  }
});

afterEach(() => rmSync(dirname(clone), { recursive: true }));

/** Puts a program into the clone's PATH, or at a path in the clone. */
function program(name: string, script: string, folder = path): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`);
  chmodSync(join(folder, name), 0o755);
}

async function run(code: string, env: Record<string, string> = {}) {
  const child = Bun.spawn([node, "--input-type=module", "-e", code], {
    cwd: clone,
    env: { PATH: `${path}:/usr/bin:/bin`, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { code: await child.exited, stdout, stderr };
}

const setUpUv = (env?: Record<string, string>) => run(`(await import("./bin/setup.mjs")).setUpUv();`, env);
const setUpPackages = () => run(`(await import("./bin/setup.mjs")).setUpPackages({ dev: false });`);

/** A Python of this version; making a virtual environment with it gives one that notes what it is asked to install. */
function python(name: string, version: string): void {
  const installs = `echo "$@" >> ${clone}/installed`;
  const venv = `mkdir -p .venv/bin && printf '#!/bin/sh\\n${installs}\\n' > .venv/bin/python && chmod +x .venv/bin/python`;
  program(name, `case "$1" in -c) echo ${version.replace(".", " ")} ${join(path, name)} ;; -m) ${venv} ;; esac`);
}

describe("Bun", () => {
  test("that is missing is told with how to get it", async () => {
    const child = Bun.spawn([node, join(clone, "bin", "airlock.mjs")], { stdio: ["ignore", "ignore", "pipe"] });
    expect(await child.stderr.text()).toContain("install the package again");
    expect(await child.exited).toBe(1);
  });

  test("is found beside the package and in every folder above it, and gets its arguments and its exit code", async () => {
    program("bun", `echo "$@"; exit 7`, join(dirname(clone), "node_modules", "@oven", "bun-linux-any", "bin"));
    const child = Bun.spawn([node, join(clone, "bin", "airlock.mjs"), "run", "a b"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    expect(await child.stdout.text()).toBe(`${join(clone, "src", "cli", "main.ts")} run a b\n`);
    expect(await child.exited).toBe(7);
  });

  test("is found where its install script has moved it, and not mistaken for the stand-in that it replaces", async () => {
    const folder = join(clone, "node_modules", "bun", "bin");
    program("bun.exe", "echo a stand-in", folder);
    const airlock = () =>
      Bun.spawn([node, join(clone, "bin", "airlock.mjs"), "run"], { stdio: ["ignore", "pipe", "ignore"] });
    expect(await airlock().exited).toBe(1);
    cpSync(Bun.which("echo") ?? "/bin/echo", join(folder, "bun.exe"));
    expect(await airlock().stdout.text()).toBe(`${join(clone, "src", "cli", "main.ts")} run\n`);
  });

  test("that was removed since is installed again", async () => {
    const bun = join("node_modules", "@oven", "bun-linux-any", "bin");
    program("double", `mkdir -p ${join(clone, bun)} && cp "$0" ${join(clone, bun)}`);
    program("npm", `mkdir -p ${bun} && cp ${path}/double ${bun}/bun`);
    expect((await setUpPackages()).code).toBe(0);
    rmSync(join(clone, bun), { recursive: true });
    expect((await setUpPackages()).code).toBe(0);
    expect(existsSync(join(clone, bun))).toBe(true);
  });

  test("is fetched by npm, installs what is locked, and is not fetched again", async () => {
    const bun = join("node_modules", "@oven", "bun-linux-any", "bin");
    const install = `mkdir -p ${join(clone, bun)} && cp "$0" ${join(clone, bun)} && echo "$@" >> ${clone}/installed`;
    program("double", install);
    program("npm", `echo "npm $@" >> ${clone}/installed && mkdir -p ${bun} && cp ${path}/double ${bun}/bun`);
    for (const _ of [1, 2]) expect((await setUpPackages()).code).toBe(0);
    const { dependencies } = await Bun.file(join(clone, "package.json")).json();
    expect((await Bun.file(join(clone, "installed")).text()).trim().split("\n")).toEqual([
      expect.stringMatching(new RegExp(`^npm install .*--ignore-scripts.* bun@${dependencies.bun}$`)),
      "install --frozen-lockfile --ignore-scripts --production",
    ]);
    expect(existsSync(join(clone, ".airlock", "bootstrap"))).toBe(false);
  });

  test("that npm cannot fetch is told in npm's words", async () => {
    program("npm", `echo "npm ERR! no network" >&2; exit 1`);
    const { code, stderr } = await setUpPackages();
    expect(code).toBe(1);
    expect(stderr).toContain("fetching Bun failed:\nnpm ERR! no network");
  });
});

describe("uv", () => {
  const installed = () => Bun.file(join(clone, "installed")).text();

  test("is installed by hash, once, and again when its lock or its Python changes", async () => {
    python("python3", "3.11");
    for (const _ of [1, 2]) expect((await setUpUv()).code).toBe(0);
    expect(await installed()).toMatch(/^-m pip install .*--require-hashes -r requirements\/uv.txt\n$/);
    appendFileSync(join(clone, "requirements", "uv.txt"), "\n");
    await setUpUv();
    python("python3.13", "3.13");
    await setUpUv({ AIRLOCK_PYTHON: join(path, "python3.13") });
    expect((await installed()).trim().split("\n")).toHaveLength(3);
  });

  test("is installed on the first Python that will do", async () => {
    python("python3", "3.9");
    python("python3.13", "3.14");
    python("python3.12", "3.12");
    expect((await setUpUv()).code).toBe(0);
    expect(existsSync(join(clone, ".venv", ".airlock"))).toBe(true);
  });

  test("in an environment that is a link to another's is used while it is up to date, and never made afresh", async () => {
    python("python3", "3.11");
    await setUpUv();
    const others = join(dirname(clone), "others");
    renameSync(join(clone, ".venv"), others);
    symlinkSync(others, join(clone, ".venv"));
    expect((await setUpUv()).code).toBe(0);
    appendFileSync(join(clone, "requirements", "uv.txt"), "\n");
    const { code, stderr } = await setUpUv();
    expect(code).toBe(1);
    expect(stderr).toContain(`.venv is a symbolic link to ${others}`);
    expect(stderr).toContain(`→ remove the link: rm ${join(clone, ".venv")}`);
    expect((await installed()).trim().split("\n")).toHaveLength(1);
    expect(existsSync(join(others, ".airlock"))).toBe(true);
  });

  test("without a Python that will do is an error that names those that are there", async () => {
    for (const minor of [10, 11, 12, 13]) program(`python3.${minor}`, "echo ModuleNotFoundError: venv >&2; exit 1");
    program("python", "exit 1");
    python("python3", "3.9");
    const { code, stderr } = await setUpUv();
    expect(code).toBe(1);
    expect(stderr).toContain(
      "no Python 3.10 to 3.13 with venv was found (python3: Python 3.9; python3.13: has no venv",
    );
    expect(stderr).toContain("AIRLOCK_PYTHON");
  });
});

describe("an environment of checks, tests or benchmarks", () => {
  const requirements = join(root, "requirements", "dev.txt");

  test.each(["its folder", "the folder above it"])("is not made where %s is a link to another's", async (which) => {
    const others = join(dirname(clone), "others");
    mkdirSync(join(others, "test"), { recursive: true });
    const folder = join(clone, ".venvs", "test");
    const [link, target] = which === "its folder" ? [folder, join(others, "test")] : [join(clone, ".venvs"), others];
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(target, link);
    expect(await makeEnvironment({ folder, requirements })).toContain(`${link} is a symbolic link`);
    expect(existsSync(join(others, "test"))).toBe(true);
  });
});

describe("the package", () => {
  test("is imported by its name from elsewhere", async () => {
    const elsewhere = join(dirname(clone), "elsewhere");
    mkdirSync(join(elsewhere, "node_modules"), { recursive: true });
    await Bun.$`ln -s ${root} ${join(elsewhere, "node_modules", "comfy-airlock")}`;
    const source = `import { connect, serve } from "comfy-airlock"; console.log(typeof serve, typeof connect)`;
    writeFileSync(join(elsewhere, "launcher.ts"), source);
    const child = Bun.spawn([process.execPath, "launcher.ts"], {
      cwd: elsewhere,
      stdio: ["ignore", "pipe", "inherit"],
    });
    expect(await child.stdout.text()).toBe("function function\n");
  });
});
