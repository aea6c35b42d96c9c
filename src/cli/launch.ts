/**
 * `airlock launch -- COMMAND …`: runs a host that speaks pyisolate, with Airlock in its place.
 *
 * The host finds a server by AIRLOCK_SOCKET, the one that this variable names already or one of the launch's own, and
 * `import pyisolate` gives it Airlock's module by PYTHONPATH. What its workers write is told as it comes. All ends with it.
 */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, delimiter, join } from "node:path";
import { connect } from "../client/client.ts";
import { removeSocketFolder } from "../server/socket-file.ts";
import type { Variables } from "../transport/address.ts";
import type { Status } from "../transport/control.ts";
import { AirlockError } from "../transport/errors.ts";
import { loadLibc } from "../transport/libc.ts";
import { type Command, readArguments, UsageError } from "./command.ts";
import { LaunchedLogs } from "./launched-logs.ts";
import { forwardSignals, runProgram } from "./launched-program.ts";

export const launchCommand: Command = {
  name: "launch",
  summary: "Runs a program whose packs pyisolate would isolate, and has Airlock do it.",
  usage: "launch [--python PATH] [--limit KEY=VALUE …] [--limit-max KEY=VALUE …] [--quiet] -- COMMAND [ARGUMENTS]",
  options: [
    "  --python PATH          the Python that packs run on unless they need another (AIRLOCK_PYTHON, else python3)",
    "  --limit KEY=VALUE      for packs that do not say: call_timeout, memory, processes, open_files or cpus",
    "  --limit-max KEY=VALUE  what no pack gets more than; both may be given several times",
    "  --quiet                do not print what workers write; `airlock logs` has it",
    "",
    "A server is started, or that of AIRLOCK_SOCKET joined, to which none of these options but --quiet apply. Signals go on",
    "to the program and what it started; its exit code is returned, or 128 and the number of the signal that ended it.",
  ].join("\n"),
  examples: [
    "airlock launch -- python main.py --use-process-isolation",
    "AIRLOCK_SOCKET=/tmp/me/air.sock airlock launch --quiet -- python main.py",
  ],
  run: runLaunch,
};

/** This package's own folder. */
const packageFolder = join(import.meta.dir, "..", "..");
const workerFolder = join(packageFolder, "worker", "src");
const shimFolder = join(workerFolder, "comfy_airlock", "compat", "shim");

async function runLaunch(args: readonly string[]): Promise<number> {
  const end = args.indexOf("--");
  const command = end < 0 ? [] : args.slice(end + 1);
  const { values } = readArguments(end < 0 ? args : args.slice(0, end), {
    options: {
      python: { type: "string" },
      limit: { type: "string", multiple: true },
      "limit-max": { type: "string", multiple: true },
      quiet: { type: "boolean", default: false },
    },
  });
  const [program, ...programArgs] = command;
  if (program === undefined) throw new UsageError('name a program after "--"');
  // From now on: one that comes while the server starts is for the program, too.
  const signals = forwardSignals();
  const joined = process.env["AIRLOCK_SOCKET"];
  await using server = await (joined ? joinServer(joined) : startServer(serverOptions(values, program)));
  const mark = `AIRLOCK_LAUNCH=${process.pid}`;
  const logs = values.quiet ? undefined : new LaunchedLogs({ status: server.status, mark });
  try {
    const env = { ...hostVariables(process.env), AIRLOCK_SOCKET: server.socketPath, AIRLOCK_LAUNCH: `${process.pid}` };
    return await runProgram({ command: [program, ...programArgs], env, signals, libc: loadLibc() });
  } finally {
    await logs?.end();
  }
}

function serverOptions({ python, limit, "limit-max": max }: ServerOptions, program: string): string[] {
  const given = [
    ...(limit ?? []).map((each) => ["--limit", each]),
    ...(max ?? []).map((each) => ["--limit-max", each]),
  ];
  // Packs share its torch unless they say otherwise, and it takes seconds to import.
  const torchOf = /^python[\d.]*$/.test(basename(program)) ? ["--torch-of", program] : [];
  return [...(python === undefined ? [] : ["--python", python]), ...torchOf, ...given.flat()];
}

interface ServerOptions {
  readonly python?: string | undefined;
  readonly limit?: string[] | undefined;
  readonly "limit-max"?: string[] | undefined;
}

/** The environment of the host: Airlock's `pyisolate` before any other. */
function hostVariables(variables: Variables): Record<string, string> {
  const kept = Object.entries(variables).filter((entry): entry is [string, string] => entry[1] !== undefined);
  const path = [shimFolder, workerFolder, variables["PYTHONPATH"]].filter((each) => each).join(delimiter);
  return { ...Object.fromEntries(kept), PYTHONPATH: path, AIRLOCK_BIN: join(packageFolder, "bin", "airlock.mjs") };
}

interface LaunchServer extends AsyncDisposable {
  readonly socketPath: string;
  readonly status: () => Promise<Status>;
}

/** A server that runs already, and goes on. */
async function joinServer(socketPath: string): Promise<LaunchServer> {
  const airlock = await connect({ socket: socketPath, name: "airlock launch" });
  const status = () => airlock.status();
  return { socketPath, status, [Symbol.asyncDispose]: () => airlock[Symbol.asyncDispose]() };
}

/**
 * A server of the launch's own, in a process that ends when this one does: also where this one is killed, it is there to
 * end workers in order and to remove its socket.
 */
async function startServer(options: readonly string[]): Promise<LaunchServer> {
  const socketPath = join(mkdtempSync(join(tmpdir(), "airlock-")), "server.sock");
  const command = ["serve", "--socket", socketPath, "--announce", "--until-stdin-closes", ...options];
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "main.ts"), ...command], {
    stdio: ["pipe", "pipe", "inherit"],
    // Ctrl-C is for the program to act on.
    detached: true,
  });
  const end = async () => {
    await child.stdin.end();
    await child.exited;
    removeSocketFolder(socketPath);
  };
  try {
    // What it said in the place of its socket's path is above.
    if (!(await hasAnnounced(child.stdout))) throw new AirlockError("disconnected", "no server could be started");
    const joined = await joinServer(socketPath);
    const dispose = async () => {
      await joined[Symbol.asyncDispose]();
      await end();
    };
    return { ...joined, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await end();
    throw error;
  }
}

async function hasAnnounced(output: ReadableStream<Uint8Array>): Promise<boolean> {
  const reader = output.getReader();
  const { done } = await reader.read();
  reader.releaseLock();
  return !done;
}
