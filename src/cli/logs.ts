/**
 * `airlock logs`: what a pack's workers wrote to stdout and stderr.
 */
import { readdirSync, readFileSync, statSync, writeSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { logName, logNamePattern } from "../server/workers/log-file.ts";
import { defaultFolders } from "../transport/address.ts";
import { systemClock } from "../transport/clock.ts";
import { type Command, readArguments, UsageError } from "./command.ts";
import { followLogs } from "./log-follower.ts";

export const logsCommand: Command = {
  name: "logs",
  summary: "Prints what a pack's workers wrote, with time and process id; without a pack, lists the logs there are.",
  usage: "logs [PACK] [--follow] [--lines N]",
  options: [
    "  -f, --follow   go on with what they write, until interrupted; also for a pack that has no log yet",
    "  --lines N      only the last N lines of each log (10 with --follow)",
  ].join("\n"),
  examples: ["airlock logs", "airlock logs my-pack --lines 50", "airlock logs -f my-pack"],
  run: runLogs,
};

interface Log {
  readonly pack: string;
  readonly path: string;
}

const linesFollowed = 10;

async function runLogs(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, {
    options: { lines: { type: "string" }, follow: { type: "boolean", short: "f", default: false } },
    allowPositionals: true,
  });
  const { follow } = values;
  const allLines = follow ? linesFollowed : Number.POSITIVE_INFINITY;
  const lines = values.lines === undefined ? allLines : Number(values.lines);
  if (!(lines >= 0)) throw new UsageError(`--lines takes a number, not ${JSON.stringify(values.lines)}`);
  const folder = defaultFolders(process.env, homedir()).logs;
  const [pack, ...more] = positionals;
  if (more.length > 0) throw new UsageError("name one pack");
  if (pack === undefined) {
    if (follow) throw new UsageError("name the pack to follow");
    return listLogs(folder);
  }
  const find = (): Log[] => findLogs(folder).filter((log) => log.pack === logName(pack));
  const shown = new Map<string, number>();
  const matching = find();
  if (matching.length === 0 && !follow) return reportUnknown(pack, folder);
  for (const log of matching) shown.set(log.path, printLog(log, lines, matching.length > 1));
  if (!follow) return 0;
  if (matching.length === 0)
    console.error(`airlock logs: there is no log of ${pack} yet; waiting for its first worker`);
  await followLogs(shown, {
    clock: systemClock,
    find: () => find().map((log) => log.path),
    write: (bytes) => void writeSync(1, bytes),
    signal: untilInterrupted(),
  });
  return 0;
}

function listLogs(folder: string): number {
  const logs = findLogs(folder);
  for (const log of logs) console.log(`${log.pack}\t${statSync(log.path).size} bytes\t${log.path}`);
  if (logs.length === 0) console.error(`airlock logs: there are no logs in ${folder} yet; a worker makes its pack's`);
  return 0;
}

function reportUnknown(pack: string, folder: string): number {
  const known = [...new Set(findLogs(folder).map((log) => log.pack))].join(", ");
  console.error(
    `airlock logs: there is no log of a pack ${JSON.stringify(pack)}; there are logs of: ${known || "none"}`,
  );
  return 1;
}

/** Prints the end of a log; returns how many of its bytes are known then. */
function printLog(log: Log, lines: number, isOneOfSeveral: boolean): number {
  // Two folders may hold packs of one name, and two workers of one pack write to a log each.
  if (isOneOfSeveral) console.log(`==> ${log.path}`);
  const bytes = readFileSync(log.path);
  const text = bytes.toString("utf8");
  if (text === "") console.error(`airlock logs: ${log.path} is empty: the workers of ${log.pack} wrote nothing`);
  const tail = text.split("\n").slice(-lines - (text.endsWith("\n") ? 1 : 0));
  writeSync(1, lines === 0 ? "" : tail.join("\n"));
  return bytes.byteLength;
}

function untilInterrupted(): AbortSignal {
  const interrupted = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => interrupted.abort());
  return interrupted.signal;
}

function findLogs(folder: string): Log[] {
  let names: string[];
  try {
    names = readdirSync(folder).sort();
  } catch {
    return [];
  }
  return names.flatMap((name) => {
    const pack = logNamePattern.exec(name)?.[1];
    return pack === undefined ? [] : [{ pack, path: join(folder, name) }];
  });
}
