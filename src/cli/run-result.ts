/**
 * What `airlock run` prints when it is done: a row for each node with the process it ran in, and the files written.
 */
import { join, relative } from "node:path";
import type { WorkflowResult } from "../workflow/execute.ts";
import type { Workflow } from "../workflow/workflow.ts";
import type { IsolatedPack, WorkerIdentity } from "./isolated-pack.ts";
import { formatTable } from "./table.ts";

export interface PrintOptions {
  /** Folder that files were written to. */
  readonly output: string;
  readonly json: boolean;
  readonly signal: AbortSignal;
}

interface ResultRow {
  readonly id: string;
  readonly node: string;
  readonly pack: string;
  /** Null where it is not known. */
  readonly pid: number | null;
  readonly python: string;
  readonly numpy: string | undefined;
  readonly ms: number;
}

export async function printResult(
  workflow: Workflow,
  result: WorkflowResult,
  packs: readonly IsolatedPack[],
  options: PrintOptions,
): Promise<void> {
  const rows = await resultRows(result, packs, options.signal);
  const files = [...workflow.nodes.keys()].flatMap((id) => filesOf(result.ui[id], options.output));
  if (options.json) {
    console.log(JSON.stringify({ nodes: rows, files }, null, 2));
    return;
  }
  const columns = [
    { title: "node" },
    { title: "pack" },
    { title: "pid", align: "right" },
    { title: "python" },
    { title: "numpy" },
    { title: "ms", align: "right" },
  ] as const;
  const cells = rows.map((row) => {
    const { node, pack, pid, python, numpy, ms } = row;
    return [node, pack, String(pid ?? "–"), python, numpy ?? "–", ms.toFixed(ms < 10 ? 1 : 0)];
  });
  console.log(formatTable(columns, cells));
  for (const file of files) console.log(`wrote ${fromHere(file)}`);
}

/** The nodes in the order in which they finished, each with the process that its pack runs in, where that is one. */
async function resultRows(
  result: WorkflowResult,
  packs: readonly IsolatedPack[],
  signal: AbortSignal,
): Promise<ResultRow[]> {
  const used = new Set(result.nodes.map((report) => report.pack));
  const identities = new Map<string, WorkerIdentity>();
  for (const pack of packs) if (used.has(pack.name)) identities.set(pack.name, await pack.identity(signal));
  return result.nodes.flatMap(({ id, title, pack, ms }) => {
    const worker = identities.get(pack);
    if (worker === undefined) return [];
    return [{ id, node: title, pack, pid: worker.pid ?? null, python: worker.python, numpy: worker.numpy, ms }];
  });
}

/** The files that a node says it wrote, in the form in which ComfyUI's front end is told: `{ images: [{ … }] }`. */
function filesOf(ui: unknown, output: string): string[] {
  const images = (ui as { images?: unknown } | undefined)?.images;
  if (!Array.isArray(images)) return [];
  return images.flatMap((image: { filename?: unknown; subfolder?: unknown; type?: unknown }) => {
    if (typeof image.filename !== "string") return [];
    const folder = image.type === "temp" ? join(output, "preview") : output;
    return [join(folder, String(image.subfolder ?? ""), image.filename)];
  });
}

/** The path as a person in this folder would write it. */
function fromHere(path: string): string {
  const short = relative(process.cwd(), path);
  return short.startsWith("..") ? path : short;
}
