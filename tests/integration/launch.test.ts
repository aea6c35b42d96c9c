/** `airlock launch`: what a program finds, how signals and its end travel, and that nothing is left of it. */
import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { readLines, runAirlock, startAirlock, startServer } from "./processes.ts";
import { isAlive, root, until, useWorld } from "./support.ts";

const world = useWorld();
const python = join(root, ".venvs", "test", "bin", "python");

/** A program of a few lines, in the world's folder, beside a pack that it may load. */
function host(source: string): string[] {
  const folder = join(world.folder, "host");
  mkdirSync(join(folder, "pack"), { recursive: true });
  writeFileSync(join(folder, "pack", "__init__.py"), "import sys\nprint('imported', file=sys.stderr)\nNAME = 'pack'\n");
  writeFileSync(join(folder, "extension.py"), extension);
  writeFileSync(join(folder, "main.py"), `${preamble}\n${source}`);
  return ["--", python, join(folder, "main.py")];
}

const extension = `
import os
from pyisolate import ExtensionBase
class Extension(ExtensionBase):
    async def on_module_loaded(self, module):
        self.module = module
    async def look(self):
        print("a line of the pack's")
        import pyisolate
        return [os.getpid(), self.module.NAME, pyisolate.__file__]
`;

const preamble = `
import asyncio, os, signal, sys, time
import pyisolate
from extension import Extension
def load(name="pack"):
    folder = os.path.join(os.path.dirname(__file__), "pack")
    manager = pyisolate.ExtensionManager(Extension, {"venv_root_path": "/nowhere"})
    return manager.load_extension({"name": name, "module_path": folder, "sandbox_mode": "disabled"})
def say(*words):
    print(*words, flush=True)
`;

test("a program finds Airlock's pyisolate, as its workers do, and what they write is told by the pack's name", async () => {
  const { code, stdout, stderr } = await runAirlock(
    [
      "launch",
      ...host(
        "pid, name, file = asyncio.run(load('my pack').look()); say(name, pyisolate.__file__ == file, pid != os.getpid())",
      ),
    ],
    world,
  );
  expect(stderr).toContain("[my pack] a line of the pack's\n");
  expect(stderr).toContain("[my pack] imported\n");
  expect([code, stdout]).toEqual([0, "pack True True\n"]);
});

test("--quiet leaves out what workers write", async () => {
  const { stderr } = await runAirlock(["launch", "--quiet", ...host("asyncio.run(load().look())")], world);
  expect(stderr).not.toContain("a line of the pack's");
});

test("python -m comfy_airlock launch does the same", async () => {
  const [, ...command] = host("say(asyncio.run(load().look())[1])");
  const child = Bun.spawn([python, "-m", "comfy_airlock", "launch", "--quiet", "--", ...command], {
    cwd: world.folder,
    env: {
      ...world.variables(),
      PYTHONPATH: join(root, "worker", "src"),
      AIRLOCK_BIN: join(root, "bin", "airlock.mjs"),
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  expect(await new Response(child.stdout).text()).toBe("pack\n");
  expect(await child.exited).toBe(0);
});

test("a server that runs already is joined, and goes on", async () => {
  const server = await startServer(world);
  const command = ["launch", ...host("say(os.environ['AIRLOCK_SOCKET'], asyncio.run(load().look())[1])")];
  const { code, stdout, stderr } = await runAirlock(command, world, { AIRLOCK_SOCKET: world.socket });
  expect([code, stdout]).toEqual([0, `${world.socket} pack\n`]);
  expect(stderr).toContain("[pack] a line of the pack's\n");
  expect(existsSync(world.socket)).toBe(true);
  server.kill("SIGTERM");
  await server.exited;
});

test.each([
  ["sys.exit(7)", 7],
  ["sys.exit()", 0],
  ["os.kill(os.getpid(), signal.SIGKILL)", 128 + 9],
  ["os.kill(os.getpid(), signal.SIGTERM)", 128 + 15],
])("the exit code is the program's: %s", async (source, expected) => {
  expect((await runAirlock(["launch", ...host(source)], world)).code).toBe(expected);
});

test("a program that is not there is said to be so, with a shell's exit code", async () => {
  const { code, stderr } = await runAirlock(["launch", "--", "no-such-program"], world);
  expect(code).toBe(127);
  expect(stderr).toContain("no-such-program was not found");
  expect((await runAirlock(["launch", "python"], world)).code).toBe(2);
});

test("arguments after -- are the program's, --help among them", async () => {
  const command = [...host("say(sys.argv[1:])"), "--help", "--", "-q"];
  expect((await runAirlock(["launch", ...command], world)).stdout).toBe("['--help', '--', '-q']\n");
});

const waits = `
say(asyncio.run(load().look())[0], os.getpid(), os.environ["AIRLOCK_SOCKET"])
def told(number, frame):
    say("told", signal.Signals(number).name)
    sys.exit(3)
signal.signal(signal.SIGTERM, told); signal.signal(signal.SIGINT, told)
say("ready")
while True: time.sleep(1)
`;

/** A launch whose program has its worker and waits; tells the processes of both. */
async function launched() {
  const child = startAirlock(["launch", "--quiet", ...host(waits)], world);
  const lines = readLines(child.stdout);
  const [worker, program, socket = ""] = String((await lines.next()).value).split(" ");
  expect((await lines.next()).value).toBe("ready");
  return { child, lines, worker: Number(worker), program: Number(program), folder: dirname(socket) };
}

test.each(["SIGINT", "SIGTERM"] as const)("%s goes on to the program, whose answer to it counts", async (signal) => {
  const { child, lines, worker } = await launched();
  child.kill(signal);
  expect((await lines.next()).value).toBe(`told ${signal}`);
  expect(await child.exited).toBe(3);
  expect(isAlive(worker)).toBe(false);
});

test("nothing is left of a launch that is killed", async () => {
  const { child, worker, program, folder } = await launched();
  expect(existsSync(folder)).toBe(true);
  child.kill("SIGKILL");
  await child.exited;
  await until(() => !isAlive(worker) && !isAlive(program), "worker and program have ended");
  await until(() => !existsSync(folder), "the server's folder is gone");
});

test("nothing is left of a program that is killed", async () => {
  const { child, worker, program } = await launched();
  process.kill(program, "SIGKILL");
  expect(await child.exited).toBe(128 + 9);
  expect(isAlive(worker)).toBe(false);
});

describe("of the examples,", () => {
  const launchers = join(root, "examples", "launchers");
  const airlock = join(root, "bin", "airlock.mjs");

  test.each([
    ["launch.sh", (main: string) => [join(launchers, "launch.sh"), "--more", main]],
    ["launch.py", (main: string) => [python, join(launchers, "launch.py"), main, "--more"]],
    ["embedded.ts", (main: string) => [process.execPath, join(launchers, "embedded.ts"), python, main, "--more"]],
  ])("%s runs a host on Airlock", async (_, command) => {
    const [, , main = ""] = host("say(asyncio.run(load().look())[1], '--more' in sys.argv); sys.exit(5)");
    const child = Bun.spawn(command(main), {
      cwd: world.folder,
      env: {
        ...world.variables(),
        ...{ PYTHONPATH: join(root, "worker", "src"), AIRLOCK_BIN: airlock, AIRLOCK_SOCKET: "" },
        ...{ AIRLOCK: airlock, PYTHON: python, COMFYUI: dirname(main), XDG_RUNTIME_DIR: world.folder },
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
    expect([await child.exited, stdout, stderr.includes("[pack] a line of the pack's")]).toEqual([
      5,
      "pack True\n",
      true,
    ]);
  });

  test("the systemd unit and the Dockerfile start what the others start", () => {
    const unit = readFileSync(join(launchers, "comfyui.service"), "utf8");
    expect(unit).toMatch(/^ExecStart=\S*airlock launch -- /m);
    expect(readFileSync(join(launchers, "Dockerfile"), "utf8")).toContain('"launch", "--"]');
  });
});
