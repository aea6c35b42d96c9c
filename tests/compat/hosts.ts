/** Runs a program of a host's on the real pyisolate or on Airlock, in one Python that has both. */
import { join } from "node:path";
import { pyisolateEnvironment } from "../../scripts/python.ts";
import { uvVariables } from "../../src/server/environments/uv.ts";
import { root, type World } from "../integration/support.ts";

export type On = "pyisolate" | "Airlock";

const bin = join(pyisolateEnvironment.folder, "bin");
const folder = import.meta.dir;

/** Runs it to its end; returns what the last line of its output says, as JSON. */
export async function runHost(on: On, program: string, world: World, args: readonly string[] = []): Promise<unknown> {
  const script = [join(bin, "python"), join(folder, "host_app", program), join(world.folder, "venvs"), ...args];
  const launch = [process.execPath, join(root, "src", "cli", "main.ts"), "launch", "--quiet", "--"];
  const child = Bun.spawn(on === "Airlock" ? [...launch, ...script] : script, {
    cwd: world.folder,
    // pyisolate looks for uv on PATH.
    env: { ...world.variables(), ...uvVariables(process.env), PATH: `${bin}:${process.env["PATH"]}` },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  const last = stdout.trimEnd().split("\n").at(-1) ?? "";
  if ((await child.exited) !== 0 || !last.startsWith("{"))
    throw new Error(`${program} on ${on}:\n${stdout}\n${stderr}`);
  return JSON.parse(last);
}
