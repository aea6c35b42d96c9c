import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmod, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type InterpreterRequest, pickInterpreter } from "../../../src/server/environments/interpreter.ts";
import { Uv } from "../../../src/server/environments/uv.ts";

let root: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "airlock-interpreter-"));
});

afterEach(async () => {
  await rm(root, { recursive: true });
});

async function script(name: string, source: string): Promise<string> {
  const path = join(root, name);
  await Bun.write(path, `#!/bin/sh\n${source}\n`);
  await chmod(path, 0o755);
  return path;
}

/** A stand-in for a Python, which answers the question for its version. */
async function python(version: string, name = `python${version}`): Promise<string> {
  const path = join(root, name);
  const answer = { path, implementation: "cpython", version, platform: "linux-x86_64-glibc" };
  return await script(name, `echo '${JSON.stringify(answer)}'`);
}

/** A stand-in for uv; `find` and `venv` are shell scripts for those commands. */
async function uv({ find = "exit 2", venv = "echo 'No interpreter found' >&2; exit 2", PATH = "/usr/bin:/bin" } = {}) {
  const path = await script("uv", `case "$1" in\npython) ${find};;\nvenv) ${venv};;\nesac`);
  return new Uv(path, { env: { PATH } });
}

async function pick(asked: Partial<InterpreterRequest> & { defaultPython: string }, withUv?: Uv) {
  const request = { pack: "p", file: "/p/pyproject.toml", ...asked };
  return await pickInterpreter(request, { uv: withUv ?? (await uv()), scratch: root });
}

test("the default Python is taken if it will do", async () => {
  const defaultPython = await python("3.11.7");
  expect(await pick({ defaultPython, requiresPython: ">=3.10" })).toMatchObject({ path: defaultPython });
  expect(await pick({ defaultPython })).toMatchObject({ version: "3.11.7" });
});

describe("another is looked for", () => {
  test("if the default one does not satisfy the pack", async () => {
    const other = await python("3.12.1");
    const found = await pick(
      { defaultPython: await python("3.11.7"), requiresPython: ">=3.12" },
      await uv({ find: `test "$5" = '>=3.12,>=3.10,<3.14' && echo ${other}` }),
    );
    expect(found.path).toBe(other);
  });

  test.each(["3.9.18", "3.14.0"])("if Airlock does not support the default one, %s", async (version) => {
    const other = await python("3.12.1");
    expect((await pick({ defaultPython: await python(version) }, await uv({ find: `echo ${other}` }))).path).toBe(
      other,
    );
  });

  test("if the default one does not run", async () => {
    const other = await python("3.12.1");
    const withUv = await uv({ find: `echo ${other}` });
    expect((await pick({ defaultPython: await script("shim", "exit 127") }, withUv)).path).toBe(other);
    expect((await pick({ defaultPython: join(root, "missing") }, withUv)).path).toBe(other);
  });

  test("not if somebody named one that does not run: that is an error", async () => {
    const withUv = await uv({ find: `echo ${await python("3.12.1")}` });
    const asked = { defaultPython: join(root, "missing"), isDefaultNamed: true };
    const error = await pick(asked, withUv).catch((thrown) => thrown);
    expect(error).toMatchObject({ code: "environment_failed", details: { hint: expect.stringContaining("--python") } });
    expect(error.message).toContain(join(root, "missing"));
  });

  test("through a virtual environment, which may download one, and of which nothing stays", async () => {
    const other = await python("3.12.1");
    // The last argument is the folder of the environment.
    const venv = `for last; do :; done; mkdir -p "$last/bin" && cp ${other} "$last/bin/python"`;
    const found = await pick({ defaultPython: await python("3.11.7"), requiresPython: ">=3.12" }, await uv({ venv }));
    expect(found.path).toBe(other);
    expect((await readdir(root)).filter((entry) => entry.startsWith("."))).toEqual([]);
  });

  test("among the versions behind a folder of shims, newest first, instead of the shims, and without unsupported ones", async () => {
    const newer = await python("3.12.10", "pyenv/versions/3.12.10/bin/python3");
    await python("3.12.9", "pyenv/versions/3.12.9/bin/python3");
    await python("3.14.0", "pyenv/versions/3.14.0/bin/python3");
    await script("pyenv/versions/2.7.18/bin/python3", "exit 2");
    const PATH = `${join(root, "pyenv/shims")}:/usr/bin:/bin`;
    await script("pyenv/shims/python3", "exit 127");
    const found = await pick(
      { defaultPython: await python("3.11.7"), requiresPython: ">=3.12" },
      await uv({ PATH, find: "command -v python3" }),
    );
    expect(found.path).toBe(newer);
  });
});

test("where there is none, the error says what is needed, why, what is here, and what to do", async () => {
  const defaultPython = await python("3.11.7");
  const error = await pick({ defaultPython, requiresPython: ">=3.12" }).catch((thrown) => thrown);
  expect(error.code).toBe("environment_failed");
  expect(error.message).toContain(">=3.12 (requires-python, in /p/pyproject.toml)");
  expect(error.message).toContain(`${defaultPython}, is 3.11.7`);
  expect(error.details.hint).toContain("uv python install 3.13");
  expect(error.details.hint).toContain("AIRLOCK_PYTHON");
  expect(error.details.log).toBe("No interpreter found");
});

test("a pack that needs a Python that Airlock does not run on is told so without a search", async () => {
  const defaultPython = await python("3.11.7");
  await expect(pick({ defaultPython, requiresPython: ">=3.14" })).rejects.toThrow("Airlock supports >=3.10,<3.14");
  await expect(pick({ defaultPython, requiresPython: "nonsense" })).rejects.toMatchObject({ code: "manifest_invalid" });
});

test("a pack that shares torch and needs another minor version is refused by name", async () => {
  const request = { defaultPython: await python("3.11.7"), requiresPython: ">=3.12", minor: "3.11" };
  await expect(pick(request)).rejects.toThrow("same Python minor required");
});

test("a pack that shares torch and excludes only the host's patch gets another of the same minor", async () => {
  const other = await python("3.11.9");
  const request = { defaultPython: await python("3.11.7"), requiresPython: "!=3.11.7", minor: "3.11" };
  expect((await pick(request, await uv({ find: `echo ${other}` }))).path).toBe(other);
});

test("an abort is an abort, not a missing Python", async () => {
  const request = { pack: "p", file: "/p", defaultPython: await script("slow", "sleep 60") };
  const signal = AbortSignal.timeout(100);
  await expect(pickInterpreter(request, { uv: await uv(), scratch: root, signal })).rejects.toMatchObject({
    code: "cancelled",
  });
});
