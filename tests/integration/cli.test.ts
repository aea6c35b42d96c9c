/** The `airlock` command as a person uses it. */
import { describe, expect, test } from "bun:test";
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { Tuple } from "../../src/index.ts";
import { logPath } from "../../src/server/workers/log-file.ts";
import { readLines, runAirlock, startAirlock } from "./processes.ts";
import { packs, root, until, untilLogged, useWorld } from "./support.ts";

const world = useWorld();
const examples = join(root, "examples");

function workflow(nodes: object): string {
  const path = join(world.folder, "workflow.json");
  writeFileSync(path, JSON.stringify(nodes));
  return path;
}

describe("airlock", () => {
  test("explains itself, with examples", async () => {
    for (const args of [["--help"], ["help"], ["run", "--help"], ["help", "serve"], ["logs", "-h"]]) {
      const { code, stdout } = await runAirlock(args, world);
      expect(code).toBe(0);
      expect(stdout).toContain("Usage: airlock");
      expect(stdout).toContain("Examples:");
    }
    const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
    expect((await runAirlock(["--version"], world)).stdout.trim()).toBe(version);
  });

  test.each([
    [[], 2],
    [["fly"], 2],
    [["run"], 2],
    [["run", "a.json", "b.json"], 2],
    [["run", "a.json", "--no-such-option"], 2],
    [["run", "missing.json"], 2],
    [["logs", "nobody"], 1],
    [["serve", "--socket", `/tmp/${"x".repeat(200)}`], 2],
    [["serve", "--limit", "memory"], 2],
    [["serve", "--segments", "files"], 2],
    [["serve", "--limit", "memory=8GiB", "--limit-max", "memroy=8GiB"], 2],
    [["serve", "--limit-max", "cpus=many"], 2],
  ] as const)("%j is refused with exit code %d and a message", async (args, code) => {
    const outcome = await runAirlock(args, world);
    expect(outcome.code).toBe(code);
    expect(outcome.stderr + outcome.stdout).toContain("airlock");
  });
});

const saysSleeping = (log: string) => readFileSync(log, "utf8").includes("sleeping");

describe("airlock run", () => {
  test("runs two packs that cannot live together over one photograph, each with its own numpy", async () => {
    const output = join(world.folder, "out");
    const args = [
      "run",
      join(examples, "workflows", "photo.json"),
      "--packs",
      join(examples, "packs"),
      "--output",
      output,
      "--json",
    ];
    const { code, stdout, stderr } = await runAirlock(args, world);
    expect(stderr).not.toContain("error");
    expect(code).toBe(0);
    const { nodes, files } = JSON.parse(stdout) as {
      nodes: { pack: string; pid: number; numpy: string }[];
      files: string[];
    };
    const seen = new Map(nodes.map((node) => [node.pack, node]));
    expect(seen.get("superpixels")?.numpy).toBe("1.26.4");
    expect(seen.get("inkwork")?.numpy).toStartWith("2.");
    expect(new Set(nodes.map((node) => node.pid)).size).toBe(3);
    expect(files).toEqual([join(output, "photo_00001_.png")]);
    const png = readFileSync(files[0] as string);
    expect(png.subarray(1, 4).toString()).toBe("PNG");
    expect(png.byteLength).toBeGreaterThan(50_000);
  }, 120_000);

  test("loads an image of the user's, and prints a table", async () => {
    const output = join(world.folder, "out");
    const input = join(world.folder, "in");
    mkdirSync(input);
    copyFileSync(join(root, "docs", "images", "photo.png"), join(input, "example.png"));
    const args = ["run", join(examples, "workflows", "load.json"), "--packs", join(examples, "packs", "inkwork")];
    const { code, stdout } = await runAirlock([...args, "--input", input, "--output", output], world);
    expect(code).toBe(0);
    expect(stdout).toMatch(/node +pack +pid +python +numpy +ms/);
    const written = /^wrote (.*)$/m.exec(stdout)?.[1] as string;
    expect(written).toStartWith("out/");
    expect(existsSync(join(world.folder, written))).toBe(true);
  });

  test("runs nodes that do not need each other in as many workers as their pack has", async () => {
    const folder = join(world.folder, "marks");
    mkdirSync(folder);
    const meet = { class_type: "Meet", inputs: { folder, count: 3 } };
    const args = ["run", workflow({ 1: meet, 2: meet, 3: meet }), "--packs", join(packs, "pool"), "--json"];
    const { code, stdout } = await runAirlock([...args, "--output", join(world.folder, "out")], world);
    expect(code).toBe(0);
    expect(readdirSync(folder).length).toBe(3);
    // Which of them ran a node is not known.
    const { nodes } = JSON.parse(stdout) as { nodes: { pid: number | null }[] };
    expect(nodes.map(({ pid }) => pid)).toEqual([null, null, null]);
  });

  test("that is interrupted while it makes an environment ends at once, and leaves nothing of it", async () => {
    const pack = join(world.folder, "large");
    mkdirSync(pack);
    writeFileSync(join(pack, "pyisolate.yaml"), 'isolated: true\ndependencies: ["scikit-image==0.25.2"]\n');
    const [cache, temporary] = [join(world.folder, "cache"), join(world.folder, "tmp")];
    mkdirSync(temporary);
    const run = startAirlock(["run", workflow({ "1": { class_type: "Any", inputs: {} } }), "--packs", pack], world, {
      XDG_CACHE_HOME: cache,
      TMPDIR: temporary,
    });
    const environments = join(cache, "airlock", "environments");
    const made = () => (existsSync(environments) ? readdirSync(environments) : []);
    await until(() => made().some((name) => name.startsWith(".making-")), "it makes an environment");
    run.kill("SIGINT");
    expect(await run.exited).toBe(130);
    expect(made().filter((name) => name.startsWith(".") || name.endsWith(".lock"))).toEqual([]);
    expect(readdirSync(temporary)).toEqual([]);
  });

  test("that is interrupted while a node runs ends its workers", async () => {
    const path = workflow({
      "1": { class_type: "SleepHoldingGil", inputs: { seconds: 600 } },
      "2": { class_type: "PreviewImage", inputs: { images: ["1", 0] } },
    });
    const run = startAirlock(["run", path, "--packs", join(packs, "probe")], world);
    const logs = new Bun.Glob("state/airlock/logs/probe-*.log");
    const isSleeping = () => [...logs.scanSync({ cwd: world.folder, absolute: true })].some(saysSleeping);
    await until(isSleeping, "its node runs");
    run.kill("SIGTERM");
    expect(await run.stderr.text()).toEndWith("airlock run: interrupted\n");
    expect(await run.exited).toBe(130);
  });

  test("says what the operating system refuses, without a stack", async () => {
    const path = workflow({ "1": { class_type: "Any", inputs: {} } });
    const output = join(path, "out");
    const { code, stderr } = await runAirlock(
      ["run", path, "--packs", join(packs, "probe"), "--output", output],
      world,
    );
    expect([code, stderr.trim().split("\n").length]).toEqual([2, 2]);
    expect(stderr).toMatch(/^airlock run: the output folder .*workflow\.json\/out cannot be made \(E[A-Z]+\)/);
  });

  test("in a temporary folder with too long a name for a socket says what to set", async () => {
    const temporary = join(world.folder, "x".repeat(100));
    mkdirSync(temporary);
    const args = ["run", workflow({ "1": { class_type: "Any", inputs: {} } }), "--packs", join(packs, "probe")];
    const { code, stderr } = await runAirlock(args, world, { TMPDIR: temporary });
    expect(code).toBe(2);
    expect(stderr).toContain("TMPDIR");
    expect(readdirSync(temporary)).toEqual([]);
  });

  test("says which node of which pack failed, with the remote traceback", async () => {
    const path = workflow({
      "1": { class_type: "Raise", inputs: {} },
      "2": { class_type: "PreviewImage", inputs: { images: ["1", 0] } },
    });
    const { code, stderr } = await runAirlock(["run", path, "--packs", join(packs, "probe")], world);
    expect(code).toBe(1);
    expect(stderr).toContain("Raise");
    expect(stderr).toContain("raise KeyError(message)");
  });

  test("names both packs that offer one class name", async () => {
    const twin = join(world.folder, "twin");
    mkdirSync(twin);
    for (const name of ["__init__.py", "nodes.py"]) copyFileSync(join(packs, "probe", name), join(twin, name));
    const manifest = readFileSync(join(packs, "probe", "pyproject.toml"), "utf8");
    writeFileSync(join(twin, "pyproject.toml"), manifest.replace('"probe"', '"twin"'));
    const path = workflow({ "1": { class_type: "Echo", inputs: {} } });
    const { code, stderr } = await runAirlock(["run", path, "--packs", join(packs, "probe"), "--packs", twin], world);
    expect(code).toBe(2);
    expect(stderr).toContain("probe");
    expect(stderr).toContain("twin");
    expect(stderr).toContain("Echo");
  });

  test("refuses what is no workflow before it makes any environment", async () => {
    const path = join(world.folder, "broken.json");
    writeFileSync(path, '{"1": ');
    const { code, stderr } = await runAirlock(["run", path, "--packs", join(packs, "probe")], world);
    expect(code).toBe(2);
    expect(stderr).not.toContain("choosing a Python");
  });

  test("goes on without a pack that it doesn't need, and names one that it does", async () => {
    const broken = ["--packs", join(packs, "wrong-import"), "--packs", join(packs, "probe")];
    const path = workflow({ "1": { class_type: "NotThere", inputs: {} } });
    const { code, stderr } = await runAirlock(["run", path, ...broken], world);
    expect(code).toBe(1);
    expect(stderr).toContain("error: ");
    expect(stderr).toContain("libmissing.so");
    expect(stderr).toContain("NotThere");
    expect(stderr).toEndWith("→ correct what is said of them above\n");
  });

  test("does not blame a pack for a fault of the workflow's own, and fails with its code", async () => {
    const broken = ["--packs", join(packs, "wrong-import"), "--packs", join(packs, "probe")];
    const unlinked = workflow({ "1": { class_type: "PreviewImage", inputs: {} } });
    const faulty = await runAirlock(["run", unlinked, ...broken], world);
    expect(faulty.code).toBe(2);
    expect(faulty.stderr).toContain("warning: ");
    expect(faulty.stderr).not.toContain("could not be made ready");
  });

  test("names the file that is malformed or missing, and the Python that does not run", async () => {
    const path = join(world.folder, "broken.json");
    writeFileSync(path, '{"1": ');
    expect((await runAirlock(["run", path], world)).stderr).toContain(`${path}: `);
    expect((await runAirlock(["run", "nosuch.json"], world)).stderr).toMatch(/nosuch\.json: there is no such file/);
    const args = ["run", workflow({ "1": { class_type: "Echo", inputs: {} } }), "--packs", join(packs, "probe")];
    const { code, stderr } = await runAirlock([...args, "--python", "python9"], world);
    expect(code).toBe(1);
    expect(stderr).toContain("python9");
  });

  test("warns of two packs of one name", async () => {
    const twin = join(world.folder, "twin");
    mkdirSync(twin);
    writeFileSync(join(twin, "__init__.py"), "NODE_CLASS_MAPPINGS = {}\n");
    writeFileSync(join(twin, "pyisolate.yaml"), "isolated: true\nname: probe\n");
    const path = workflow({ "1": { class_type: "NotThere", inputs: {} } });
    const { stderr } = await runAirlock(["run", path, "--packs", join(packs, "probe"), "--packs", twin], world);
    expect(stderr).toContain(`warning: 2 packs are called probe: ${join(packs, "probe")}, ${twin}`);
  });
});

describe("airlock logs", () => {
  test("prints what a pack's workers wrote, and lists the packs that have logs", async () => {
    const path = workflow({
      "1": { class_type: "Print", inputs: { text: "written by a node" } },
      "2": { class_type: "PreviewImage", inputs: { images: ["1", 0] } },
    });
    await runAirlock(["run", path, "--packs", join(packs, "probe")], world);
    expect((await runAirlock(["logs"], world)).stdout).toMatch(/^probe\t/m);
    const { code, stdout } = await runAirlock(["logs", "probe", "--lines", "2"], world);
    expect(code).toBe(0);
    const line = "\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{3}Z \\d+ written by a node";
    expect(stdout).toMatch(new RegExp(`^${line}\n${line} on descriptor 2\n$`));
  });

  test("finds a pack by its name as its author writes it", async () => {
    const logs = join(world.folder, "state", "airlock", "logs");
    mkdirSync(logs, { recursive: true });
    writeFileSync(logPath(logs, "My Pack!", "/packs/my-pack"), "hello\n");
    expect((await runAirlock(["logs", "My Pack!"], world)).stdout).toBe("hello\n");
    expect((await runAirlock(["logs", "My", "Pack!"], world)).code).toBe(2);
  });
});

describe("airlock logs --follow", () => {
  /** A log of this world's, and a command that follows it. */
  function following(...args: string[]) {
    const logs = join(world.folder, "state", "airlock", "logs");
    mkdirSync(logs, { recursive: true });
    const child = startAirlock(["logs", "-f", "probe", ...args], world);
    return { logs, path: logPath(logs, "probe", "/packs/probe"), child, lines: readLines(child.stdout) };
  }

  const next = async (lines: AsyncGenerator<string>) => (await lines.next()).value as string;

  test("waits for a pack's first worker, and goes on over set-aside files, with several workers, until Ctrl-C", async () => {
    const { logs, path, child, lines } = following();
    const said = readLines(child.stderr);
    expect(await next(said)).toContain("there is no log of probe yet");
    writeFileSync(path, "one\ntwo\nhal");
    expect([await next(lines), await next(lines)]).toEqual(["one", "two"]);
    appendFileSync(path, "f\nlast\n");
    renameSync(path, `${path}.1`);
    writeFileSync(path, "fresh\n");
    expect([await next(lines), await next(lines), await next(lines)]).toEqual(["half", "last", "fresh"]);
    writeFileSync(path.replace(/log$/, "2.log"), "of another worker\n");
    writeFileSync(logPath(logs, "other", "/packs/other"), "of another pack\n");
    expect(await next(lines)).toBe("of another worker");
    appendFileSync(path, "end\n");
    expect(await next(lines)).toBe("end");
    child.kill("SIGINT");
    expect(await child.exited).toBe(0);
    expect(await lines.next()).toEqual({ done: true, value: undefined });
  });

  test("begins with the last lines", async () => {
    const logs = join(world.folder, "state", "airlock", "logs");
    mkdirSync(logs, { recursive: true });
    writeFileSync(logPath(logs, "probe", "/packs/probe"), "one\ntwo\nthree\n");
    const { child, lines, path } = following("--lines", "1");
    expect(await next(lines)).toBe("three");
    appendFileSync(path, "four\n");
    expect(await next(lines)).toBe("four");
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
  });

  test("needs to be told which pack", async () => {
    expect((await runAirlock(["logs", "-f"], world)).code).toBe(2);
  });
});

describe("airlock stack", () => {
  test("prints where a worker is, also while C code holds the interpreter's lock", async () => {
    const { pack, server } = await world.probe();
    await pack.describe();
    const call = pack.call("SleepHoldingGil", { seconds: 600 });
    await untilLogged(server, "sleeping");
    const { code, stdout, stderr } = await runAirlock(["stack", "probe", "--socket", world.socket], world);
    expect(stderr).toBe("");
    expect(code).toBe(0);
    expect(stdout).toMatch(/^==> probe, worker \d+ of test \(pid \d+\), in /);
    expect(stdout).toMatch(/^Current thread .*\n +File ".*nodes\.py", line \d+ in run$/m);
    // Its other threads.
    expect(stdout).toMatch(/^Thread .*/m);
    // C's sleep comes back at any signal. The worker lives on.
    expect(await call).toEqual(Tuple.of(600));
  });

  test("prints those of all workers of one pack's name, and harms none", async () => {
    const { pack, server } = await world.probe();
    const { pid } = await pack.describe();
    const other = await (await world.connect(server)).open(join(packs, "probe"));
    const pids = [pid, (await other.describe()).pid];
    const { stdout } = await runAirlock(["stack", "probe", "--socket", world.socket], world);
    expect([...stdout.matchAll(/^==> probe, worker (\d+)/gm)].map((match) => Number(match[1])).sort()).toEqual(
      pids.sort(),
    );
    expect([(await pack.describe()).pid, (await other.describe()).pid].sort()).toEqual(pids);
  });

  test("says that there is no server, no such pack, no worker, and none that answers", async () => {
    const stack = async (pack: string) => await runAirlock(["stack", pack, "--socket", world.socket], world);
    expect((await stack("probe")).code).toBe(1);
    const { pack } = await world.probe();
    const without = await stack("probe");
    expect([without.code, without.stderr]).toEqual([
      1,
      expect.stringContaining("no worker of the pack probe is running"),
    ]);
    const unknown = await stack("nobody");
    expect([unknown.code, unknown.stderr]).toEqual([1, expect.stringContaining("open are: probe")]);
    const { pid } = await pack.describe();
    process.kill(pid, "SIGSTOP");
    const stopped = await stack("probe");
    expect([stopped.code, stopped.stderr]).toEqual([1, expect.stringContaining("did not print its stacks within 5 s")]);
    process.kill(pid, "SIGCONT");
  });
});
