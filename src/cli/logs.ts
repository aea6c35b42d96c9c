/**
 * `airlock logs`: what a pack's workers wrote to stdout and stderr.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { logName, logNamePattern } from "../server/workers/log-file.ts";
import { defaultFolders } from "../transport/address.ts";
import { type Command, readArguments, UsageError } from "./command.ts";

export const logsCommand: Command = {
  name: "logs",
  summary: "Prints what a pack's workers wrote; without a pack, lists the logs there are.",
  usage: "logs [PACK] [--lines N]",
  options: "  --lines N   only the last N lines",
  examples: ["airlock logs", "airlock logs my-pack --lines 50"],
  run: async (args) => runLogs(args),
};

interface Log {
  readonly pack: string;
  readonly path: string;
}

function runLogs(args: readonly string[]): number {
  const { values, positionals } = readArguments(args, {
    options: { lines: { type: "string" } },
    allowPositionals: true,
  });
  const lines = values.lines === undefined ? Number.POSITIVE_INFINITY : Number(values.lines);
  if (!(lines >= 0)) throw new UsageError(`--lines takes a number, not ${JSON.stringify(values.lines)}`);
  const folder = defaultFolders(process.env, homedir()).logs;
  const logs = findLogs(folder);
  const [pack, ...more] = positionals;
  if (more.length > 0) throw new UsageError("name one pack");
  if (pack === undefined) {
    for (const log of logs) console.log(`${log.pack}\t${statSync(log.path).size} bytes\t${log.path}`);
    if (logs.length === 0) console.error(`airlock logs: there are no logs in ${folder} yet; a worker makes its pack's`);
    return 0;
  }
  const matching = logs.filter((log) => log.pack === logName(pack));
  if (matching.length === 0) {
    const known = [...new Set(logs.map((log) => log.pack))].join(", ");
    console.error(
      `airlock logs: there is no log of a pack ${JSON.stringify(pack)}; there are logs of: ${known || "none"}`,
    );
    return 1;
  }
  for (const log of matching) {
    // Two folders may hold packs of one name, and two workers of one pack write to a log each.
    if (matching.length > 1) console.log(`==> ${log.path}`);
    const text = readFileSync(log.path, "utf8");
    if (text === "") console.error(`airlock logs: ${log.path} is empty: the workers of ${log.pack} wrote nothing`);
    const tail = text.split("\n").slice(-lines - (text.endsWith("\n") ? 1 : 0));
    process.stdout.write(lines === 0 ? "" : tail.join("\n"));
  }
  return 0;
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
