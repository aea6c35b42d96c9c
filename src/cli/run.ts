/**
 * `airlock run`: a ComfyUI workflow without ComfyUI, every pack isolated.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { type Airlock, connect } from "../client/client.ts";
import type { Pack } from "../client/pack.ts";
import { serve } from "../server/serve.ts";
import { checkSocketPath } from "../transport/address.ts";
import { systemClock } from "../transport/clock.ts";
import { AirlockError, toAirlockError } from "../transport/errors.ts";
import { checkPrompt } from "../workflow/check.ts";
import { executeWorkflow } from "../workflow/execute.ts";
import { indexNodes } from "../workflow/pack.ts";
import { workflowError } from "../workflow/problem.ts";
import { type Prompt, parsePrompt } from "../workflow/prompt.ts";
import type { Workflow } from "../workflow/workflow.ts";
import { type Command, readArguments, UsageError } from "./command.ts";
import { IsolatedPack } from "./isolated-pack.ts";
import { findPackFolders } from "./pack-folders.ts";
import { ProgressDisplay } from "./progress.ts";
import { printResult } from "./run-result.ts";

/** The pack with LoadImage, SaveImage and PreviewImage. */
const imageNodes = join(import.meta.dir, "..", "..", "packs", "image-io");

export const runCommand: Command = {
  name: "run",
  summary: "Runs a workflow (ComfyUI's API format) without ComfyUI, each pack in a process of its own.",
  usage: "run WORKFLOW.json --packs DIR [--packs DIR …] [--input DIR] [--output DIR]",
  options: [
    "  --packs DIR    a pack, or a folder of packs; may be given several times",
    "  --input DIR    where LoadImage finds its files (default: the workflow's folder)",
    "  --output DIR   where SaveImage writes (default: output)",
    "  --python PATH  the Python that packs run on unless they need another (AIRLOCK_PYTHON, else python3)",
    "  --json         print the result as JSON",
    "",
    "LoadImage, SaveImage and PreviewImage come with it; all other nodes come from the packs.",
    "Exit codes: 0 done, 1 a node failed or a pack that the workflow needs, 2 the workflow or the command line is wrong,",
    "130 interrupted. A pack that the workflow does not need may fail with a warning.",
  ].join("\n"),
  examples: ["airlock run workflow.json --packs custom_nodes --output out", "airlock run test.json --packs ."],
  run: runRun,
};

interface RunOptions {
  readonly workflow: string;
  readonly packs: readonly string[];
  readonly input: string;
  readonly output: string;
  readonly python: string | undefined;
  readonly json: boolean;
}

async function runRun(args: readonly string[]): Promise<number> {
  const options = readOptions(args);
  const text = readWorkflow(options.workflow);
  // A malformed file should be told before environments are made for it.
  const prompt = parseWorkflow(options.workflow, text);
  const folders = [imageNodes, ...options.packs.flatMap(findPackFolders)];
  const scratch = mkdtempSync(join(tmpdir(), "airlock-run-"));
  const interrupted = new AbortController();
  const onSignal = (): void => interrupted.abort(new AirlockError("cancelled", "interrupted"));
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, onSignal);
  try {
    makeOutputFolder(options.output);
    await runIsolated(options, prompt, [...new Set(folders)], scratch, interrupted.signal);
    return 0;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function readOptions(args: readonly string[]): RunOptions {
  const { values, positionals } = readArguments(args, {
    options: {
      packs: { type: "string", multiple: true },
      input: { type: "string" },
      output: { type: "string", default: "output" },
      python: { type: "string" },
      json: { type: "boolean", default: false },
    },
    allowPositionals: true,
  });
  const [workflow, ...more] = positionals;
  if (workflow === undefined || more.length > 0) throw new UsageError("name one workflow file");
  return {
    workflow: resolve(workflow),
    packs: values.packs ?? [],
    input: resolve(values.input ?? join(workflow, "..")),
    output: resolve(values.output),
    python: values.python,
    json: values.json,
  };
}

function readWorkflow(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const reason = code === "ENOENT" ? "there is no such file" : `it cannot be read (${code ?? String(error)})`;
    throw new AirlockError("bad_request", `the workflow ${path}: ${reason}`, {
      hint: "name a workflow that was saved in ComfyUI's API format",
    });
  }
}

function parseWorkflow(path: string, text: string): Prompt {
  try {
    return parsePrompt(text);
  } catch (error) {
    const { code, message, details } = toAirlockError(error);
    throw new AirlockError(code, `${path}: ${message}`, details, { cause: error });
  }
}

function makeOutputFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new AirlockError("bad_request", `the output folder ${path} cannot be made (${code ?? String(error)})`, {
      hint: "name another with --output",
    });
  }
}

async function runIsolated(
  options: RunOptions,
  prompt: Prompt,
  folders: readonly string[],
  scratch: string,
  signal: AbortSignal,
): Promise<void> {
  await using server = await serve({
    socket: checkSocketPath(join(scratch, "server.sock"), "set TMPDIR to a folder with a shorter path"),
    ...(options.python !== undefined && { python: options.python }),
    limits: { drainMsMax: 0 },
    workerVariables: {
      AIRLOCK_INPUT_DIR: options.input,
      AIRLOCK_OUTPUT_DIR: options.output,
      AIRLOCK_TEMP_DIR: join(options.output, "preview"),
    },
  });
  await using airlock = await connect({ socket: server.socketPath, name: "airlock run" });
  const loaded = await loadPacks(airlock, folders, signal);
  const workflow = checkWorkflow(prompt, loaded);
  const result = await executeWorkflow(workflow, { clock: systemClock, signal });
  await printResult(workflow, result, loaded.packs, { output: options.output, json: options.json, signal });
}

interface LoadedPacks {
  readonly packs: readonly IsolatedPack[];
  /** Packs that could not be made ready, with the reason. */
  readonly failures: readonly AirlockError[];
}

/** Makes all packs ready, side by side. One that fails matters only if the workflow needs it. */
async function loadPacks(airlock: Airlock, folders: readonly string[], signal: AbortSignal): Promise<LoadedPacks> {
  const display = new ProgressDisplay(process.stderr);
  const onProgress = display.update.bind(display);
  const outcomes = await Promise.allSettled(
    folders.map(async (folder) => {
      const pack = await airlock.open(folder);
      await pack.prepare({ signal, onProgress });
      return { pack, isolated: await IsolatedPack.load(pack, signal) };
    }),
  );
  display.finish();
  signal.throwIfAborted();
  const packs: IsolatedPack[] = [];
  const failures: AirlockError[] = [];
  for (const outcome of outcomes) {
    if (outcome.status === "rejected") failures.push(toAirlockError(outcome.reason));
    else {
      packs.push(outcome.value.isolated);
      warn(outcome.value.pack, outcome.value.isolated);
    }
  }
  warnOfTwins(packs);
  return { packs, failures };
}

function warn(pack: Pack, isolated: IsolatedPack): void {
  for (const warning of pack.warnings) console.error(`warning: pack ${pack.name}: ${warning}`);
  for (const broken of isolated.broken) console.error(`warning: pack ${pack.name}: node ${broken}`);
}

/**
 * The workflow, checked against the packs that are ready. Packs that aren't are its failure only where it has nodes that
 * no pack has.
 */
function checkWorkflow(prompt: Prompt, { packs, failures }: LoadedPacks): Workflow {
  const checked = checkPrompt(prompt, indexNodes(packs));
  const isFailed = !checked.ok && failures.length > 0 && checked.problems.some(({ isClassMissing }) => isClassMissing);
  for (const failure of failures) console.error(`${isFailed ? "error" : "warning"}: ${failure.describe()}`);
  if (checked.ok) return checked.workflow;
  const cause = workflowError(checked.problems);
  if (!isFailed) throw cause;
  const message = `${cause.message}\nthe packs above could not be made ready, so their nodes are missing`;
  throw new AirlockError("node_not_found", message, { hint: "correct what is said of them above" }, { cause });
}

/** Tables, errors and logs call packs by their names. */
function warnOfTwins(packs: readonly IsolatedPack[]): void {
  const folders = new Map<string, string[]>();
  for (const { name, folder } of packs) folders.set(name, [...(folders.get(name) ?? []), folder]);
  for (const [name, twins] of folders) {
    if (twins.length > 1) console.error(`warning: ${twins.length} packs are called ${name}: ${twins.join(", ")}`);
  }
}
