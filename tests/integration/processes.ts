/** Servers and Python hosts as processes of their own, for tests that end them. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { packs, root, until, type World } from "./support.ts";

const entry = join(root, "src", "cli", "main.ts");
/** Any Python with the one hard dependency of the package. */
const python = join(root, ".venvs", "test", "bin", "python");

type Piped = Subprocess<"pipe", "pipe", "pipe">;

/** Starts the command, in the world's folder. */
export function startAirlock(args: readonly string[], world: World, env: Record<string, string> = {}) {
  return Bun.spawn([process.execPath, entry, ...args], {
    cwd: world.folder,
    env: { ...world.variables(), ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

/** Runs the command to its end. */
export async function runAirlock(args: readonly string[], world: World, env: Record<string, string> = {}) {
  const child = startAirlock(args, world, env);
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { code: await child.exited, stdout, stderr };
}

/**
 * A server in a process of its own, listening.
 *
 * @param cgroup the folder of the cgroup that it is born in; this process's by default.
 */
export async function startServer(world: World, options: readonly string[] = [], cgroup?: string): Promise<Piped> {
  const command = [process.execPath, entry, "serve", "--socket", world.socket, ...options];
  const enter = cgroup === undefined ? [] : ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', cgroup];
  const child = Bun.spawn([...enter, ...command], {
    env: world.variables(),
    stdio: ["pipe", "pipe", "pipe"],
  });
  await until(() => existsSync(world.socket), "the server listens");
  return child;
}

export interface HostProcess {
  readonly child: Piped;
  /** Its worker's process id. */
  readonly worker: number;
  /** Where its server listens. */
  readonly socket: string;
  /** How its call went. */
  readonly outcome: Promise<{ result?: string; error?: string; message?: string }>;
}

/** A Python host that has its worker, and is making one call. */
export async function startHost(
  world: World,
  node: string,
  inputs: object,
  env: Record<string, string> = { AIRLOCK_SOCKET: world.socket },
): Promise<HostProcess> {
  const child = Bun.spawn(
    [python, join(import.meta.dir, "host.py"), join(packs, "probe"), node, JSON.stringify(inputs)],
    {
      env: { ...world.variables(), PYTHONPATH: join(root, "worker", "src"), ...env },
      stdio: ["pipe", "pipe", "pipe"],
    },
  );
  const lines = readLines(child.stdout);
  const first = await lines.next();
  if (first.done) throw new Error(`the host said nothing: ${await new Response(child.stderr).text()}`);
  const { worker, socket } = JSON.parse(first.value);
  return { child, worker, socket, outcome: lines.next().then((line) => (line.done ? {} : JSON.parse(line.value))) };
}

/** Lines of text as they come. */
export async function* readLines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string, undefined> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}
