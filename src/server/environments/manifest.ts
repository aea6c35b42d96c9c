/**
 * A pack's manifest: found in its folder, read, checked, and brought into one shape whichever file it came from.
 *
 * Invariant: what is returned was checked whole; a manifest with problems is an error that names every one of them.
 * It reads and never runs anything of the pack's, and does not ask whether its requirements exist.
 */
import { constants } from "node:fs";
import { open, realpath, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { NodeTraits, WorkerEntry } from "../../transport/control.ts";
import { AirlockError, toAirlockError } from "../../transport/errors.ts";
import type { Limit, LimitValues, ResourceLimits } from "../workers/limits/resource-limits.ts";
import { isTable, type ManifestProblem } from "./manifest-problems.ts";
import { checkIsolation, checkProject } from "./manifest-schema.ts";

/** What a pack asks for. */
export interface PackManifest {
  readonly name: string;
  /** The pack's folder, absolute and without symbolic links. */
  readonly folder: string;
  /** The file that all this was read from, inside {@link folder}; or what is said in its place where the host gave it. */
  readonly file: string;
  /** Present where it was not read from a file: its host may have several packs in one folder, by their names. */
  readonly isGiven?: true;
  /** What its workers run besides its nodes. */
  readonly entry?: WorkerEntry;
  /** Requirements (PEP 508), in the order of the file, each once. */
  readonly dependencies: readonly string[];
  /** Version clauses such as `>=3.11,<3.14`; absent if any Python that Airlock supports will do. */
  readonly requiresPython?: string;
  /** Whether the pack's process uses the host's torch instead of one of its own. */
  readonly shareTorch: boolean;
  /** Variables added to the environment of the pack's process. */
  readonly env: Record<string, string>;
  /** Workers that the pack may have at once for one host. */
  readonly workers: number;
  /** Whether every call is to have a process of its own. */
  readonly freshProcess: boolean;
  /** Whether the memory that its host passes to it, and it to its host, is shown to no other pack. */
  readonly privateMemory: boolean;
  /** Milliseconds without a call after which a worker ends that nothing needs; absent if it never does. */
  readonly idleTimeoutMs?: number;
  /** What is to be known of some of its nodes, by their class names. */
  readonly nodes: Readonly<Record<string, NodeTraits>>;
  /** What the pack may use, each with where that is set. */
  readonly limits: ResourceLimits;
  /** What the file says that has no effect, a sentence each. */
  readonly warnings: readonly string[];
}

/** Largest manifest read, in bytes: they are written by hand, and one is read for each `open`. */
const manifestBytesMax = 256 * 1024;

const yamlName = "pyisolate.yaml";
const tomlName = "pyproject.toml";
const howToAsk = `Put "[tool.comfy.isolation]" with "can_isolate = true" into ${tomlName}, or write a ${yamlName}.`;

/**
 * Loads the manifest of the pack in `folder`: `pyisolate.yaml`, or `pyproject.toml` with `[tool.comfy.isolation]`.
 *
 * @throws AirlockError `manifest_invalid` if there is no such folder, no manifest, two of them, or anything wrong in it
 */
export async function loadManifest(folder: string): Promise<PackManifest> {
  const home = await resolveFolder(folder);
  const pack = basename(home);
  const yamlFile = join(home, yamlName);
  const tomlFile = join(home, tomlName);
  const [yaml, toml] = await Promise.all([readSource(yamlFile, pack), readSource(tomlFile, pack)]);
  if (yaml === undefined && toml === undefined) {
    throw invalid(`${home} has no manifest: neither ${yamlName} nor ${tomlName}`, pack, howToAsk);
  }
  const document = toml === undefined ? {} : parseTable(toml, tomlFile, pack, Bun.TOML.parse);
  const isolation = at(at(at(document, "tool"), "comfy"), "isolation");
  if (yaml === undefined) {
    if (isolation === undefined) throw doesNotAsk(`${tomlFile} has no [tool.comfy.isolation]`, pack);
    const manifest = fromPyproject(document, isolation, tomlFile, home);
    return await warnOfIgnoredRequirements(manifest);
  }
  if (isolation !== undefined) {
    const message = `two manifests: ${yamlFile}, and [tool.comfy.isolation] in ${tomlFile}`;
    throw invalid(message, pack, "Keep one of them; they could ask for different things.");
  }
  const manifest = fromYaml(parseTable(yaml, yamlFile, pack, Bun.YAML.parse), yamlFile, home);
  return await warnOfIgnoredRequirements(manifest);
}

/**
 * The manifest of the pack in `folder` as its host gives it, whatever files there are.
 *
 * @param table with the keys of a pyisolate.yaml.
 * @throws AirlockError `manifest_invalid` as {@link loadManifest}
 */
export async function checkGivenManifest(folder: string, table: Record<string, unknown>): Promise<PackManifest> {
  return { ...fromYaml(table, "the manifest that its host gave", await resolveFolder(folder)), isGiven: true };
}

/** What tells a host's packs from each other. */
export function packKey({ folder, name, isGiven }: Pick<PackManifest, "folder" | "name" | "isGiven">): string {
  return isGiven ? `${folder}\0${name}` : folder;
}

async function resolveFolder(folder: string): Promise<string> {
  try {
    const home = await realpath(folder);
    if ((await stat(home)).isDirectory()) return home;
  } catch (thrown) {
    const code = (thrown as NodeJS.ErrnoException).code;
    const reason = code === "ENOENT" ? "does not exist" : `cannot be read (${code ?? String(thrown)})`;
    throw invalid(`the pack's folder ${folder} ${reason}`, basename(folder));
  }
  throw invalid(
    `${folder} is not a folder`,
    basename(folder),
    "Open the folder that holds the pack, not a file in it.",
  );
}

/** The file's text; undefined if there is no such file. */
async function readSource(file: string, pack: string): Promise<string | undefined> {
  try {
    // Without O_NONBLOCK, a named pipe in the file's place would block until somebody writes to it.
    await using handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
    if (!(await handle.stat()).isFile()) throw invalid(`${file} is not a regular file`, pack);
    // One byte more than may be there tells a file of the largest size from a larger one.
    const buffer = new Uint8Array(manifestBytesMax + 1);
    let filled = 0;
    while (filled < buffer.length) {
      const { bytesRead } = await handle.read(buffer, filled, buffer.length - filled, filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    if (filled > manifestBytesMax) throw invalid(`${file} is larger than ${manifestBytesMax} bytes`, pack);
    return new TextDecoder("utf-8", { fatal: true }).decode(buffer.subarray(0, filled));
  } catch (thrown) {
    const code = (thrown as NodeJS.ErrnoException).code;
    if (code === "ENOENT") return undefined;
    if (thrown instanceof AirlockError) throw thrown;
    if (thrown instanceof TypeError) throw invalid(`${file} is not UTF-8 text`, pack);
    throw invalid(`${file} cannot be read (${code ?? String(thrown)})`, pack);
  }
}

function parseTable(
  source: string,
  file: string,
  pack: string,
  parse: (source: string) => unknown,
): Record<string, unknown> {
  let document: unknown;
  try {
    document = parse(source);
  } catch (thrown) {
    const { message } = toAirlockError(thrown, "manifest_invalid");
    throw invalid(`${file}: ${message}`, pack, "Correct the syntax of the file.");
  }
  if (isTable(document)) return document;
  throw invalid(`${file} must hold one table of settings`, pack, 'Write lines such as "name: my-pack".');
}

function fromYaml(table: Record<string, unknown>, file: string, folder: string): PackManifest {
  const { settings, problems, warnings } = checkIsolation(table, { prefix: "", askKey: "isolated" });
  if (settings === undefined) throw withProblems(file, basename(folder), problems);
  if (settings.isolate === false) throw doesNotAsk(`${file} says "isolated: false"`, basename(folder));
  const { name, requiresPython, shareTorch, env, running, limits } = settings;
  return {
    name: name ?? basename(folder),
    folder,
    file,
    dependencies: [...new Set(settings.dependencies)],
    ...(requiresPython !== undefined && { requiresPython }),
    shareTorch,
    env,
    ...running,
    limits: limitsFrom(limits, "limits", file),
    warnings,
  };
}

function fromPyproject(
  document: Record<string, unknown>,
  isolationTable: unknown,
  file: string,
  folder: string,
): PackManifest {
  const pack = basename(folder);
  const projectTable = document["project"] ?? {};
  const misshapen = Object.entries({ project: projectTable, "tool.comfy.isolation": isolationTable })
    .filter(([, table]) => !isTable(table))
    .map(([key]) => ({ key, reason: `must be a table: write [${key}]` }));
  if (!isTable(projectTable) || !isTable(isolationTable)) throw withProblems(file, pack, misshapen);
  const project = checkProject(projectTable);
  const isolation = checkIsolation(isolationTable, { prefix: "tool.comfy.isolation.", askKey: "can_isolate" });
  if (project.settings === undefined || isolation.settings === undefined) {
    throw withProblems(file, pack, [...project.problems, ...isolation.problems]);
  }
  if (isolation.settings.isolate !== true) {
    throw doesNotAsk(`[tool.comfy.isolation] in ${file} does not say "can_isolate = true"`, pack);
  }
  const { shareTorch, env, running, limits } = isolation.settings;
  const requiresPython = isolation.settings.requiresPython ?? project.settings.requiresPython;
  return {
    name: isolation.settings.name ?? project.settings.name ?? pack,
    folder,
    file,
    dependencies: [...new Set([...project.settings.dependencies, ...isolation.settings.dependencies])],
    ...(requiresPython !== undefined && { requiresPython }),
    shareTorch,
    env,
    ...running,
    limits: limitsFrom(limits, "tool.comfy.isolation.limits", file),
    warnings: isolation.warnings,
  };
}

/** The limits that a file sets, each with the key that sets it. */
function limitsFrom(values: LimitValues, table: string, file: string): ResourceLimits {
  const sourced = ([name, value]: [string, number]): [string, Limit] => [
    name,
    { value, source: `${table}.${name} in ${file}` },
  ];
  return Object.fromEntries(Object.entries(values).map(sourced));
}

/** A pack that relies on requirements.txt would otherwise fail much later, at its first import. */
async function warnOfIgnoredRequirements(manifest: PackManifest): Promise<PackManifest> {
  if (manifest.dependencies.length > 0) return manifest;
  const ignored = join(manifest.folder, "requirements.txt");
  if (!(await Bun.file(ignored).exists())) return manifest;
  const warning = `${ignored} is not read: list what the pack needs in the dependencies of ${manifest.file}`;
  return { ...manifest, warnings: [...manifest.warnings, warning] };
}

function at(table: unknown, key: string): unknown {
  return isTable(table) && Object.hasOwn(table, key) ? table[key] : undefined;
}

function withProblems(file: string, pack: string, problems: readonly ManifestProblem[]): AirlockError {
  const lines = problems.map(({ key, reason }) => `${key} ${reason}`);
  const [only, ...others] = lines;
  const message =
    only !== undefined && others.length === 0
      ? `${file}: ${only}`
      : `${file} has ${lines.length} problems:\n${lines.map((line) => `  ${line}`).join("\n")}`;
  return invalid(message, pack, `Correct ${file} and open the pack again.`);
}

function doesNotAsk(reason: string, pack: string): AirlockError {
  return invalid(`the pack ${JSON.stringify(pack)} does not ask to be isolated: ${reason}`, pack, howToAsk);
}

function invalid(message: string, pack: string, hint?: string): AirlockError {
  return new AirlockError("manifest_invalid", message, { pack, ...(hint !== undefined && { hint }) });
}
