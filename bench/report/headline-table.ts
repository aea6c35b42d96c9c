/** What says most, as a table in Markdown: one row for each contender, Airlock first. For the README. Pure. */
import type { Measurement, Run } from "../results.ts";
import { estimate } from "../statistics.ts";
import { formatCell } from "./format.ts";

interface Column {
  readonly title: string;
  readonly scenario: string;
  readonly of: string;
  readonly statistic: string;
}

const columns: readonly Column[] = [
  { title: "a call, µs", scenario: "calls", of: "node's arguments", statistic: "p50" },
  { title: "1,000 items, /s", scenario: "stream", of: "1000 items", statistic: "items" },
  { title: "an IMAGE both ways, ms", scenario: "shapes", of: "IMAGE", statistic: "p50" },
  { title: "a GiB in, ms", scenario: "images", of: "1 GiB in", statistic: "p50" },
  { title: "the first GiB, ms", scenario: "images", of: "1 GiB in, first of all", statistic: "once" },
  { title: "its peak both ways", scenario: "footprint", of: "1 GiB both", statistic: "peak of its size" },
  { title: "after a kill, ms", scenario: "recovery", of: "a killed worker", statistic: "next answer" },
];

interface Row {
  readonly title: string;
  /** The names that it goes by, in the order in which they are looked for. */
  readonly names: readonly string[];
}

const rows: readonly Row[] = [
  { title: "**Airlock**", names: ["airlock, line", "airlock"] },
  { title: "Airlock, relayed", names: ["airlock, relay"] },
  { title: "JSON over stdout, the old protocol", names: ["stdout JSON"] },
  { title: "pyisolate", names: ["pyisolate, method", "pyisolate"] },
  { title: "comfy-env", names: ["comfy-env"] },
  { title: "torch.multiprocessing", names: ["torch.multiprocessing"] },
  { title: "shared_memory and a pipe", names: ["shared_memory and a pipe"] },
  { title: "Ray", names: ["Ray actors"] },
  { title: "pyzmq, pickle 5", names: ["pyzmq"] },
  { title: "gRPC", names: ["gRPC"] },
  { title: "floor: a socket pair", names: ["socket pair"] },
  { title: "floor: one copy in memory", names: ["one memcpy"] },
  { title: "floor: the same in the host's process", names: ["in process"] },
];

/** Medians with their bounds; a dash where something was not measured. Columns and rows without any number are left out. */
export function headlineTable(run: Run): string {
  const cells = rows.map((row) => columns.map((column) => cellOf(run, row, column)));
  const isFull = columns.map((_, at) => cells.some((row) => row[at] !== undefined));
  const line = (title: string, textOf: (at: number) => string): string =>
    `| ${[title, ...[...columns.keys()].filter((at) => isFull[at]).map(textOf)].join(" | ")} |`;
  const lines = rows.flatMap(({ title }, row) => {
    const texts = cells[row] ?? [];
    return texts.some((text) => text !== undefined) ? [line(title, (at) => texts[at] ?? "–")] : [];
  });
  return [line("", (at) => columns[at]?.title ?? ""), line("---", () => "---:"), ...lines].join("\n");
}

function cellOf({ results }: Run, { names }: Row, { scenario, of, statistic }: Column): string | undefined {
  const measurements = results.find((each) => each.scenario === scenario)?.measurements ?? [];
  const named = (name: string): Measurement | undefined =>
    measurements.find(
      (each) => each.contender === name && each.of === of && each.statistic === statistic && each.condition === "free",
    );
  const measured = names.map(named).find((each) => each !== undefined);
  if (measured === undefined) return undefined;
  return formatCell(estimate(measured.samples));
}
