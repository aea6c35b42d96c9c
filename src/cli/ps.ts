/**
 * `airlock ps`: the workers of a running server, and how they are.
 */
import type { Status } from "../transport/control.ts";
import { socketHelp, socketOption, withServer } from "./admin.ts";
import { type Command, readArguments } from "./command.ts";
import { formatAge, formatBytes } from "./figures.ts";
import { type Column, formatTable } from "./table.ts";

export const psCommand: Command = {
  name: "ps",
  summary: "Lists the packs that are open, and their workers.",
  usage: "ps [--socket PATH]",
  options: socketHelp,
  examples: ["airlock ps"],
  run: async (args) => {
    const { values } = readArguments(args, { options: socketOption });
    const stats = await withServer(values.socket, "ps", (airlock) => airlock.stats());
    if (stats.packs.length === 0) console.error("airlock ps: no host has a pack open");
    else console.log(formatTable(columns, rowsOf(stats)));
    return 0;
  },
};

const columns: readonly Column[] = [
  { title: "PACK" },
  { title: "HOST" },
  { title: "PID", align: "right" },
  { title: "STATE" },
  { title: "CALLS", align: "right" },
  { title: "PSS", align: "right" },
  { title: "SHARES", align: "right" },
  { title: "AGE", align: "right" },
  { title: "RESTARTS", align: "right" },
  { title: "NOTE" },
];

function rowsOf({ packs }: Status): string[][] {
  return packs.flatMap((pack) =>
    pack.workers.map((worker) => [
      pack.name,
      `${pack.host.name} (${pack.host.pid})`,
      worker.pid === 0 ? "–" : String(worker.pid),
      worker.state,
      String(worker.calls),
      worker.pss_bytes === null ? "–" : formatBytes(worker.pss_bytes),
      worker.segment_bytes === 0 ? "–" : formatBytes(worker.segment_bytes),
      worker.pid === 0 ? "–" : formatAge(worker.age_ms),
      String(worker.restarts),
      noteOf(worker),
    ]),
  );
}

/** What a person should know of a worker besides the figures. */
function noteOf(worker: Status["packs"][number]["workers"][number]): string {
  if (worker.silent_ms > 1_000) return `has not said how it is for ${formatAge(worker.silent_ms)}`;
  if (worker.pid === 0 && worker.last_exit !== null) return `the last one: ${worker.last_exit}`;
  return "";
}
