/**
 * Which Python a pack runs on.
 *
 * Invariant: an interpreter that is returned was run a moment ago, is one that Airlock supports, and satisfies what was
 * asked. The default one is preferred; others are looked for, and downloaded where the user allows that, by uv.
 */
import { readdir, rm } from "node:fs/promises";
import { basename, delimiter, dirname, join } from "node:path";
import * as v from "valibot";
import { type Clock, systemClock } from "../../transport/clock.ts";
import { AirlockError, toAirlockError } from "../../transport/errors.ts";
import { ask as askPython } from "./python-answer.ts";
import type { Uv, Variables } from "./uv.ts";
import { parseRelease, parseSpecifier, type Release, type VersionSpecifier } from "./version-specifier.ts";

/** A Python, as it describes itself. */
export interface Interpreter {
  /** The executable: not one of a virtual environment, which may be deleted, but the one beneath. */
  readonly path: string;
  /** e.g. `cpython`, or `cpythont` for a free-threaded build. */
  readonly implementation: string;
  /** Full version, e.g. `3.12.4`. */
  readonly version: string;
  /** Operating system, machine and C library, e.g. `linux-x86_64-glibc`. */
  readonly platform: string;
}

export interface InterpreterRequest {
  /** Names the pack in errors. */
  readonly pack: string;
  /** The manifest's file, named in errors. */
  readonly file: string;
  /** Version clauses; any supported Python if absent. */
  readonly requiresPython?: string | undefined;
  /** `3.12`, if no other minor version will do. */
  readonly minor?: string | undefined;
  /** Taken if it will do. */
  readonly defaultPython: string;
  /** Somebody named the default Python, so it is an error if it doesn't run. */
  readonly isDefaultNamed?: boolean | undefined;
}

export interface InterpreterSearch {
  readonly uv: Uv;
  /** An existing folder, in which nothing is left behind. */
  readonly scratch: string;
  /** Asks a Python what it is; {@link queryInterpreter} unless answers are remembered. */
  readonly query?: typeof queryInterpreter;
  readonly signal?: AbortSignal | undefined;
  readonly clock?: Clock | undefined;
}

export interface QueryOptions {
  readonly variables: Variables;
  readonly signal?: AbortSignal | undefined;
  readonly clock?: Clock | undefined;
}

/** The Python versions that Airlock's worker runs on. */
const supportedPython = ">=3.10,<3.14";

const probe = `
import json, platform, struct, sys
libc = (platform.libc_ver()[0] or "musl",) if sys.platform == "linux" else ()
machine = platform.machine() or "unknown"
if struct.calcsize("P") == 4: machine += "-32bit"
print(json.dumps({
    "path": getattr(sys, "_base_executable", None) or sys.executable,
    "implementation": sys.implementation.name + getattr(sys, "abiflags", ""),
    "version": platform.python_version(),
    "platform": "-".join((sys.platform, machine, *libc)),
}))
`;

const description = v.object({
  path: v.string(),
  implementation: v.string(),
  version: v.string(),
  platform: v.string(),
});

/**
 * Asks a Python what it is by running it, with none of the user's modules or variables in its way.
 *
 * @throws AirlockError `environment_failed` if it doesn't run, or doesn't answer within 20 s
 */
export async function queryInterpreter(python: string, options: QueryOptions): Promise<Interpreter> {
  const { variables, signal, clock = systemClock } = options;
  const { answer, result } = await askPython([python, "-I", "-c", probe], description, {
    env: variables,
    signal,
    clock,
  });
  if (answer !== undefined) return answer;
  throw new AirlockError("environment_failed", `${python} is no working Python (${result.ending})`, {
    log: result.stderr.trim(),
  });
}

/**
 * Picks the interpreter for a pack.
 *
 * @throws AirlockError `environment_failed` if no Python that will do is here and uv gets none; `manifest_invalid` if
 *   `requiresPython` is malformed; `cancelled` if the signal aborts
 */
export async function pickInterpreter(request: InterpreterRequest, search: InterpreterSearch): Promise<Interpreter> {
  const specifier = wanted(request);
  const { uv, signal, clock } = search;
  const ask = search.query ?? queryInterpreter;
  const query = (python: string) => ask(python, { variables: uv.variables, signal, clock });
  const found = await attempt(() => query(request.defaultPython));
  if (found.value !== undefined && satisfies(found.value, specifier)) return found.value;
  if (found.error !== undefined && request.isDefaultNamed === true) {
    throw new AirlockError("environment_failed", `the Python that was asked for does not run: ${found.error.message}`, {
      pack: request.pack,
      hint: "correct --python or AIRLOCK_PYTHON, or leave it out",
    });
  }
  const onMachine = await attempt(async () => query(await findOnMachine(uv, specifier, signal)));
  if (onMachine.value !== undefined && satisfies(onMachine.value, specifier)) return onMachine.value;
  const got = await attempt(() => getThroughUv(specifier, search, query));
  if (got.value !== undefined && satisfies(got.value, specifier)) return got.value;
  const here =
    found.value === undefined
      ? `the default Python, ${request.defaultPython}, does not run (${found.error?.message})`
      : `the default Python, ${request.defaultPython}, is ${found.value.version}`;
  const newest = newestMinor(specifier) ?? "3.13";
  throw new AirlockError("environment_failed", `${needs(request)}; ${here}, and uv has none`, {
    pack: request.pack,
    hint: `Install Python ${newest}, or run "uv python install ${newest}", or set AIRLOCK_PYTHON to the path of one.`,
    ...(got.error?.details.log !== undefined && { log: got.error.details.log }),
  });
}

/** Everything that is asked of the version, as one specifier that some Python satisfies. */
function wanted(request: InterpreterRequest): VersionSpecifier {
  const { requiresPython, minor, pack, file } = request;
  const clauses = requiresPython === undefined ? [] : [requiresPython];
  const { reason } = requiresPython === undefined ? {} : parseSpecifier(requiresPython);
  if (reason !== undefined) throw new AirlockError("manifest_invalid", `${file}: requires-python ${reason}`, { pack });
  const supported = specifierOf([...clauses, supportedPython]);
  if (newestMinor(supported) === undefined) {
    const hint = "Change requires-python in the manifest, if the pack works with one of these versions.";
    const message = `${needs(request)}; Airlock supports ${supportedPython}`;
    throw new AirlockError("environment_failed", message, { pack, hint });
  }
  if (minor === undefined) return supported;
  const exact = specifierOf([...clauses, `==${minor}.*`, supportedPython]);
  if (newestMinor(exact) !== undefined) return exact;
  const message = `${needs(request)}, and shares the torch of its host's Python ${minor}: same Python minor required`;
  const hint = `Run the host on Python ${newestMinor(supported)}, or leave share_torch out of the pack's manifest.`;
  throw new AirlockError("environment_failed", message, { pack, hint });
}

/** Joins clauses that were each checked before. */
function specifierOf(clauses: readonly string[]): VersionSpecifier {
  const { specifier, reason } = parseSpecifier(clauses.join(","));
  if (specifier !== undefined) return specifier;
  throw new AirlockError("internal_error", `the Python versions "${clauses.join(",")}": the specifier ${reason}`);
}

function needs({ pack, file, requiresPython }: InterpreterRequest): string {
  const version = requiresPython === undefined ? supportedPython : `${requiresPython} (requires-python, in ${file})`;
  return `the pack ${JSON.stringify(pack)} needs Python ${version}`;
}

/** The newest supported minor version of which some release satisfies the specifier, e.g. `3.13`. */
function newestMinor(specifier: VersionSpecifier): string | undefined {
  const releases = Array.from({ length: 100 }, (_, micro) => micro);
  const minor = [13, 12, 11, 10].find((candidate) => releases.some((micro) => specifier.admits([3, candidate, micro])));
  return minor === undefined ? undefined : `3.${minor}`;
}

function satisfies(interpreter: Interpreter, specifier: VersionSpecifier): boolean {
  const release: Release | undefined = parseRelease(interpreter.version);
  return release !== undefined && specifier.admits(release);
}

/** The path of a Python that is on this machine, by uv's own rules. */
async function findOnMachine(uv: Uv, specifier: VersionSpecifier, signal: AbortSignal | undefined): Promise<string> {
  const found = await uv.run(["python", "find", "--system", "--no-project", specifier.text], {
    env: { PATH: await withoutShims(uv.variables["PATH"] ?? "") },
    signal,
  });
  return found.trim();
}

/**
 * Lets uv find a Python or download one, as the user's settings of uv have it. Making a virtual environment is the one
 * way to ask for both: `uv python find` never downloads, `uv python install` always does.
 */
async function getThroughUv(
  specifier: VersionSpecifier,
  { uv, scratch, signal }: InterpreterSearch,
  query: (python: string) => Promise<Interpreter>,
): Promise<Interpreter> {
  const trial = join(scratch, `.trial-${crypto.randomUUID()}`);
  try {
    const env = { PATH: await withoutShims(uv.variables["PATH"] ?? "") };
    await uv.run(["venv", "--no-project", "--python", specifier.text, trial], { env, signal });
    return await query(join(trial, "bin/python"));
  } finally {
    await rm(trial, { recursive: true, force: true });
  }
}

/**
 * PATH with each folder of shims (pyenv, asdf, mise) replaced by the interpreters that they stand for, newest first. A
 * shim of a version that isn't selected fails when run, at which uv gives up although the version is installed.
 */
async function withoutShims(path: string): Promise<string> {
  const folders = await Promise.all(
    path.split(delimiter).map(async (folder) => {
      if (basename(folder) !== "shims") return [folder];
      const root = dirname(folder);
      const installed = [join(root, "versions"), join(root, "installs/python")];
      return (await Promise.all(installed.map(binFolders))).flat();
    }),
  );
  return folders.flat().join(delimiter);
}

/** The `bin` of each version installed in `folder` that Airlock supports: at a Python 2, too, uv would give up. */
async function binFolders(folder: string): Promise<string[]> {
  const { specifier } = parseSpecifier(supportedPython);
  const { value: versions = [] } = await attempt(() => readdir(folder));
  return versions
    .filter((version) => specifier?.admits(parseRelease(version) ?? []))
    .sort((a, b) => b.localeCompare(a, "en", { numeric: true }))
    .map((version) => join(folder, version, "bin"));
}

/** The outcome of something that may well fail; an abort is no outcome, and goes on to the caller. */
async function attempt<Value>(
  action: () => Promise<Value>,
): Promise<{ readonly value?: Value; readonly error?: AirlockError }> {
  try {
    return { value: await action() };
  } catch (thrown) {
    const error = toAirlockError(thrown, "environment_failed");
    if (error.code === "cancelled") throw error;
    return { error };
  }
}
