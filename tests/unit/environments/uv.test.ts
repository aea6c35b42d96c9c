import { afterEach, describe, expect, test } from "bun:test";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findUv, Uv, uvVariables } from "../../../src/server/environments/uv.ts";

const folders: string[] = [];

afterEach(async () => {
  await Promise.all(folders.splice(0).map((folder) => rm(folder, { recursive: true })));
});

async function folder(): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), "airlock-uv-"));
  folders.push(made);
  return made;
}

/** A stand-in for uv that runs this shell script. */
async function script(path: string, source = "exit 0"): Promise<string> {
  await Bun.write(path, `#!/bin/sh\n${source}\n`);
  await chmod(path, 0o755);
  return path;
}

describe("uv is looked for", () => {
  test("in AIRLOCK_UV first, then in the package's own environment, then on PATH", async () => {
    const root = await folder();
    const chosen = await script(join(root, "chosen/uv"));
    const own = await script(join(root, "package/.venv/bin/uv"));
    const onPath = await script(join(root, "path/uv"));
    const PATH = join(root, "path");
    expect(await findUv({ AIRLOCK_UV: chosen, PATH }, join(root, "package"))).toBe(chosen);
    expect(await findUv({ PATH }, join(root, "package"))).toBe(own);
    expect(await findUv({ PATH }, join(root, "elsewhere"))).toBe(onPath);
  });

  test("and where there is none, the error says how to get it", async () => {
    await expect(findUv({ PATH: "" }, await folder())).rejects.toMatchObject({
      code: "environment_failed",
      details: { hint: expect.stringContaining("pip install uv") },
    });
  });

  test("and an AIRLOCK_UV that names none is an error, not passed over", async () => {
    const root = await folder();
    await script(join(root, "uv"));
    await expect(findUv({ AIRLOCK_UV: join(root, "missing"), PATH: root }, root)).rejects.toThrow("AIRLOCK_UV");
  });
});

describe("uv's variables", () => {
  test("carry pip's find-links over, separated as uv wants them", () => {
    expect(uvVariables({ PIP_FIND_LINKS: " /a  https://example.invalid/b " })["UV_FIND_LINKS"]).toBe(
      "/a,https://example.invalid/b",
    );
  });

  test("leave the user's own find-links alone", () => {
    expect(uvVariables({ PIP_FIND_LINKS: "/a", UV_FIND_LINKS: "/b" })["UV_FIND_LINKS"]).toBe("/b");
    expect(uvVariables({})).not.toHaveProperty("UV_FIND_LINKS");
  });

  test("hold nothing of the environment that the server runs in, and ask for plain output", () => {
    const variables = uvVariables({ VIRTUAL_ENV: "/v", PYTHONPATH: "/p", FORCE_COLOR: "1", UV_DEFAULT_INDEX: "i" });
    expect(variables).toMatchObject({ UV_NO_PROGRESS: "1", NO_COLOR: "1", UV_DEFAULT_INDEX: "i" });
    for (const name of ["VIRTUAL_ENV", "PYTHONPATH", "FORCE_COLOR"]) expect(variables[name]).toBeUndefined();
  });
});

describe("a run of uv", () => {
  test("returns standard output and tells the lines of standard error as they come", async () => {
    const uv = new Uv(await script(join(await folder(), "uv"), "echo Resolved >&2; printf Prepared >&2; echo out"));
    const lines: string[] = [];
    expect(await uv.run(["anything"], { onLine: (line) => lines.push(line) })).toBe("out\n");
    expect(lines).toEqual(["Resolved", "Prepared"]);
  });

  test("fails with uv's own words", async () => {
    const uv = new Uv(await script(join(await folder(), "uv"), "echo 'error: no such thing' >&2; exit 2"));
    await expect(uv.run(["pip", "install", "x"])).rejects.toMatchObject({
      code: "environment_failed",
      message: "uv pip install failed (exit code 2)",
      details: { log: "error: no such thing" },
    });
  });

  test("keeps the end of an endless log", async () => {
    const uv = new Uv(
      await script(join(await folder(), "uv"), "yes 0123456789 | head -c 1000000 >&2; echo END >&2; exit 1"),
    );
    const error = await uv.run([]).catch((thrown) => thrown);
    expect(error.details.log).toEndWith("END");
    expect(error.details.log.length).toBeLessThanOrEqual(64 * 1024);
  });

  test("says when its program cannot be started", async () => {
    await expect(new Uv("/nonexistent/uv").run([])).rejects.toMatchObject({ code: "environment_failed" });
  });

  test.each(["abort", "time-out"])("ends all that it started at an %s", async (how) => {
    const pidFile = join(await folder(), "pid");
    const uv = new Uv(await script(join(await folder(), "uv"), `sleep 60 & echo $! > ${pidFile}; echo on >&2; wait`));
    const controller = new AbortController();
    const options =
      how === "abort" ? { signal: controller.signal, onLine: () => controller.abort() } : { timeoutMs: 300 };
    const error = await uv.run(["venv"], options).catch((thrown) => thrown);
    expect(error).toMatchObject(
      how === "abort" ? { code: "cancelled" } : { message: "uv venv failed (timed out after 0.3 s)" },
    );
    await untilGone(Number(await Bun.file(pidFile).text()));
  });
});

/** Waits until the process has ended; a zombie that nobody has reaped yet has ended too. */
async function untilGone(pid: number): Promise<void> {
  for (;;) {
    const { stdout } = Bun.spawnSync(["ps", "-o", "stat=", "-p", String(pid)]);
    const state = stdout.toString().trim();
    if (state === "" || state.startsWith("Z")) return;
    await Bun.sleep(10);
  }
}
