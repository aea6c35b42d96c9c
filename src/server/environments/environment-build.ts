/**
 * Makes one environment on disk.
 *
 * Invariant: `directory/<key>` is absent or whole, because an environment is made under a hidden name and renamed when
 * it is finished. Of a failure, an abort or a crash nothing stays: the first two are cleaned up here at once, the last
 * by whoever makes any environment next. The caller holds the lock of the key.
 */
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { throwIfAborted } from "./cancellation.ts";
import type { EnvironmentPlan } from "./environment-plan.ts";
import { pythonOf, writeRecord } from "./environment-record.ts";
import { type StageReport, stageOfUvLine } from "./progress.ts";
import type { Uv } from "./uv.ts";

export interface BuildOptions {
  readonly uv: Uv;
  readonly signal: AbortSignal;
  readonly report: (report: StageReport) => void;
}

/**
 * Makes the planned environment as `directory/<plan.key>`, in place of whatever lies there.
 *
 * @throws AirlockError `environment_failed` with uv's words; `cancelled` if the signal aborts
 */
export async function buildEnvironment(directory: string, plan: EnvironmentPlan, options: BuildOptions): Promise<void> {
  await removeUnfinished(directory, plan.key);
  const making = unfinishedPath(directory, plan.key, crypto.randomUUID().slice(0, 8));
  const replaced = unfinishedPath(directory, plan.key, "replaced");
  const finished = join(directory, plan.key);
  try {
    await mkdir(making);
    await install(making, plan, options);
    throwIfAborted(options.signal);
    await moveIfThere(finished, replaced);
    await rename(making, finished);
  } finally {
    await Promise.all([making, replaced].map(remove));
  }
}

async function install(making: string, plan: EnvironmentPlan, { uv, signal, report }: BuildOptions): Promise<void> {
  const { interpreter, requirements, overrides, constraints } = plan;
  report({ stage: "resolving", message: `making an environment on Python ${interpreter.version}` });
  // Relocatable, because it is renamed once it is finished.
  const venv = ["venv", "--relocatable", "--no-project", "--allow-existing", "--python", interpreter.path, making];
  await uv.run(venv, { signal });
  let stage: StageReport["stage"] = "resolving";
  const onLine = (line: string) => {
    stage = stageOfUvLine(line, stage);
    report({ stage, message: line.trim() });
  };
  const files = [
    ...(await linesFile(making, "--overrides", overrides)),
    ...(await linesFile(making, "--constraints", constraints)),
  ];
  // `copy`: an environment's files are its own, so that a pack which edits its packages changes neither uv's cache nor
  // other packs. uv's `clone` falls back to hard links wherever the file system has no reflinks (on ext4 an installed
  // file then has two links); `copy` leaves one link and still shares blocks where it can, by copy_file_range.
  // Compiled now, once, rather than by every worker where Python may not write (PYTHONDONTWRITEBYTECODE, as containers
  // like to set it): importing scikit-image then takes a quarter of the time.
  const options = ["--link-mode", "copy", "--compile-bytecode"];
  const pip = ["pip", "install", "--python", pythonOf(making), ...options, ...files, "--", ...requirements];
  await uv.run(pip, { signal, onLine });
  const torch = plan.sharedTorch?.version ?? null;
  await writeRecord(making, { format: 1, key: plan.key, requirements: [...requirements], python: interpreter, torch });
}

/** An option of uv that takes a file of lines, which stays in the environment for whoever wonders what was done. */
async function linesFile(folder: string, option: string, lines: readonly string[]): Promise<string[]> {
  if (lines.length === 0) return [];
  const path = join(folder, `airlock-${option.slice(2)}.txt`);
  await Bun.write(path, `${lines.join("\n")}\n`);
  return [option, path];
}

const unfinishedPattern = /^\.making-(.+)-[^-]+$/;

function unfinishedPath(directory: string, key: string, suffix: string): string {
  return join(directory, `.making-${key}-${suffix}`);
}

/** Removes what an earlier maker of this environment left. The caller holds the lock of the key. */
export async function removeUnfinished(directory: string, key: string): Promise<void> {
  const entries = await readdir(directory);
  const left = entries.filter((entry) => unfinishedPattern.exec(entry)?.[1] === key);
  await Promise.all(left.map((entry) => remove(join(directory, entry))));
}

/** Keys of environments that somebody is making, or was when it was killed. */
export async function unfinishedKeys(directory: string): Promise<ReadonlySet<string>> {
  const keys = (await readdir(directory)).map((entry) => unfinishedPattern.exec(entry)?.[1]);
  return new Set(keys.filter((key) => key !== undefined));
}

async function moveIfThere(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== "ENOENT") throw thrown;
  }
}

/** Tries again when the folder fills while it is emptied: a killed compiler may take a moment to be gone. */
async function remove(path: string): Promise<void> {
  await rm(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 });
}
