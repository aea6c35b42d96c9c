/**
 * `airlock serve`: a server in the foreground, until it is told to stop.
 */
import type { ServerEvent } from "../server/events.ts";
import { serve } from "../server/serve.ts";
import { removeSocketFolder } from "../server/socket-file.ts";
import { type SegmentKind, segmentKinds } from "../transport/segment-file.ts";
import { type Command, readArguments, UsageError } from "./command.ts";
import { readLimits } from "./limit-options.ts";

export const serveCommand: Command = {
  name: "serve",
  summary: "Runs a server that hosts connect to.",
  usage:
    "serve [--socket PATH] [--python PATH] [--torch-of PATH] [--limit KEY=VALUE …] [--limit-max KEY=VALUE …]" +
    " [--segments KIND] [--quiet]",
  options: [
    "  --socket PATH          the Unix socket (AIRLOCK_SOCKET, else the user's own)",
    "  --python PATH          the Python that packs run on unless they need another (AIRLOCK_PYTHON, else python3)",
    "  --torch-of PATH        a host's Python whose torch is imported ahead, for the first worker that shares it",
    "  --limit KEY=VALUE      for packs whose manifest does not say: call_timeout, memory, processes, open_files or cpus",
    "  --limit-max KEY=VALUE  what no pack gets more than; both may be given several times",
    "  --segments KIND        how memory that is shared is made: memfd, or shm, which the kernel protects from nobody (memfd)",
    "  --quiet                say nothing of peers and workers that come and go",
    "  --announce             print the socket's path to standard output once listening",
    "  --until-stdin-closes   stop when standard input ends, and remove the socket's folder where it is left empty: for a",
    "                         program that starts a server of its own",
  ].join("\n"),
  examples: [
    "airlock serve",
    "AIRLOCK_SOCKET=/tmp/me/air.sock airlock serve --python python3.12",
    "airlock serve --limit call_timeout=600 --limit-max memory=16GiB",
  ],
  run: runServe,
};

async function runServe(args: readonly string[]): Promise<number> {
  const { values } = readArguments(args, {
    options: {
      socket: { type: "string" },
      python: { type: "string" },
      "torch-of": { type: "string" },
      limit: { type: "string", multiple: true },
      "limit-max": { type: "string", multiple: true },
      segments: { type: "string" },
      quiet: { type: "boolean", default: false },
      announce: { type: "boolean", default: false },
      "until-stdin-closes": { type: "boolean", default: false },
    },
  });
  const quiet = values.quiet || values["until-stdin-closes"];
  // Ready to be stopped before there is anything to stop: a signal must never leave a socket file behind.
  const stopped = untilToldToStop(values["until-stdin-closes"]);
  const server = await serve({
    ...(values.socket !== undefined && { socket: values.socket }),
    ...(values.python !== undefined && { python: values.python }),
    ...(values["torch-of"] !== undefined && { torchOf: values["torch-of"] }),
    ...(values.segments !== undefined && { segments: readSegmentKind(values.segments) }),
    packLimits: {
      defaults: readLimits("--limit", values.limit),
      max: readLimits("--limit-max", values["limit-max"]),
    },
    onEvent: (event) => {
      if (!quiet) console.error(describeEvent(event));
    },
  });
  if (values.announce) console.log(server.socketPath);
  if (!quiet) console.error(`listening at ${server.socketPath}`);
  const reason = await Promise.race([stopped, server.ended.then(() => "asked to")]);
  if (!quiet) console.error(`stopping: ${reason}`);
  // Whoever started this server is gone, or about to be: nobody waits for the calls under way.
  await server.stop(reason === stdinClosed ? 0 : undefined);
  // Whoever started this server may have been killed, and cannot remove the folder that it made for the socket.
  if (values["until-stdin-closes"]) removeSocketFolder(server.socketPath);
  return 0;
}

function readSegmentKind(value: string): SegmentKind {
  const kind = segmentKinds.find((each) => each === value);
  if (kind !== undefined) return kind;
  throw new UsageError(`--segments takes ${segmentKinds.join(" or ")}, not ${JSON.stringify(value)}`);
}

const stdinClosed = "standard input closed";

/** Waits for SIGINT or SIGTERM, and for the end of standard input where that counts. */
function untilToldToStop(stdinCounts: boolean): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => resolve(signal));
  if (stdinCounts) void stdinEnded().then(() => resolve(stdinClosed));
  return promise;
}

async function stdinEnded(): Promise<void> {
  for await (const _ of Bun.stdin.stream());
}

function describeEvent(event: ServerEvent): string {
  switch (event.type) {
    case "peer_connected":
      return `peer ${event.peer}: ${event.role === "worker" ? "worker of pack" : "host"} ${event.name} (pid ${event.pid}) connected`;
    case "peer_closed":
      return `peer ${event.peer}: ${event.name} is gone${event.cause === undefined ? "" : `: ${event.cause.message}`}`;
    case "peer_refused":
      return `process ${event.pid} was refused: ${event.cause.message}`;
    case "worker_started":
      return `pack ${event.pack}: worker ${event.pid} ready after ${Math.round(event.startMs)} ms`;
    case "torch_not_imported":
      return `the torch of ${event.python} is not imported ahead: ${event.reason}`;
    case "worker_not_forked":
      return `pack ${event.pack}: its worker has to import torch itself: ${event.reason}`;
    case "nursery_missing":
      return `tensors are copied as they are sent, which they need not be: ${event.reason}`;
    case "worker_ended":
      return `pack ${event.pack}: worker ${event.pid} ended${event.expected ? "" : " unexpectedly"}: ${event.exit}`;
    case "worker_silent":
      return `pack ${event.pack}: worker ${event.pid} does not say how it is; native code may hold the interpreter's lock`;
    case "worker_answers":
      return `pack ${event.pack}: worker ${event.pid} says how it is again`;
    case "restore_failed":
      return `pack ${event.pack}: worker ${event.pid} begins without its state: ${event.reason.describe()}`;
    case "pack_held":
      return event.reason.describe();
    case "log_unwritable":
      return `pack ${event.pack}: its log ${event.path} takes no more lines, which are lost: ${event.reason}`;
  }
}
