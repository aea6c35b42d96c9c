/**
 * uv, as Airlock runs it: the one place that knows where it is and what surroundings it gets.
 *
 * Invariant: a run sees the user's own configuration of uv (indexes, certificates, proxies), and neither the virtual
 * environment nor the working directory that the server happens to have been started in.
 */
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { resolve } from "node:path";
import { type Clock, systemClock } from "../../transport/clock.ts";
import { AirlockError } from "../../transport/errors.ts";
import { runCommand } from "./command.ts";

/** Environment variables, as `process.env` has them. */
export type Variables = Readonly<Record<string, string | undefined>>;

export interface UvRun {
  /** Called with each line that uv writes for people (standard error). */
  readonly onLine?: ((line: string) => void) | undefined;
  /** Ends uv and all that it started. */
  readonly signal?: AbortSignal | undefined;
  /** Laid over the variables that the {@link Uv} was given; undefined removes one. */
  readonly env?: Variables | undefined;
  /** Milliseconds until the run is ended; a download may take long, so there is none unless given. */
  readonly timeoutMs?: number | undefined;
}

export class Uv {
  /** The binary's path. */
  readonly path: string;
  readonly variables: Variables;
  readonly #clock: Clock;

  /** @param options.env the variables that every run starts from; the server's own if absent */
  constructor(path: string, options: { readonly env?: Variables; readonly clock?: Clock } = {}) {
    this.path = path;
    this.variables = options.env ?? process.env;
    this.#clock = options.clock ?? systemClock;
  }

  /**
   * Runs uv to its end and returns what it wrote to standard output.
   *
   * @throws AirlockError `environment_failed` with uv's own words in `details.log`; `cancelled` if `signal` aborts
   */
  async run(args: readonly string[], options: UvRun = {}): Promise<string> {
    const { onLine, signal, timeoutMs } = options;
    const result = await runCommand([this.path, ...args], {
      env: uvVariables({ ...this.variables, ...options.env }),
      // uv reads uv.toml and pyproject.toml from where it runs upwards; the root has none of the server's.
      cwd: "/",
      onLine,
      signal,
      timeoutMs,
      clock: this.#clock,
    });
    if (result.exitCode === 0) return result.stdout;
    const verb = args.slice(0, args[0] === "pip" || args[0] === "python" ? 2 : 1).join(" ");
    const message = `uv ${verb} failed (${result.ending})`;
    throw new AirlockError("environment_failed", message, { log: (result.stderr || result.stdout).trim() });
  }
}

/** The variables that uv gets, out of those that the server has. */
export function uvVariables(variables: Variables): Record<string, string | undefined> {
  // pip separates by spaces, uv by commas. Who told pip where wheels lie expects them to be found here too.
  const findLinks = variables["UV_FIND_LINKS"] ?? variables["PIP_FIND_LINKS"]?.trim().split(/\s+/).join(",");
  return {
    ...variables,
    ...(findLinks && { UV_FIND_LINKS: findLinks }),
    UV_NO_PROGRESS: "1",
    NO_COLOR: "1",
    FORCE_COLOR: undefined,
    CLICOLOR_FORCE: undefined,
    // Each names a Python, or modules, of whoever started the server: none of the packs' business.
    VIRTUAL_ENV: undefined,
    CONDA_PREFIX: undefined,
    PYTHONPATH: undefined,
    PYTHONHOME: undefined,
  };
}

/**
 * The uv to use: AIRLOCK_UV; else the one in this package's own environment; else the first on PATH.
 *
 * @throws AirlockError `environment_failed` if there is none, or AIRLOCK_UV names none
 */
export async function findUv(
  variables: Variables = process.env,
  packageFolder: string = resolve(import.meta.dir, "../../.."),
): Promise<string> {
  const chosen = variables["AIRLOCK_UV"];
  if (chosen) {
    const path = resolve(chosen);
    if (await isExecutable(path)) return path;
    const hint = "Set it to uv's path, or unset it to have uv looked for.";
    throw new AirlockError("environment_failed", `AIRLOCK_UV is ${chosen}, which is not an executable file`, { hint });
  }
  const own = resolve(packageFolder, ".venv/bin/uv");
  if (await isExecutable(own)) return own;
  const onPath = Bun.which("uv", { PATH: variables["PATH"] ?? "" });
  if (onPath !== null) return onPath;
  throw new AirlockError("environment_failed", `uv is not installed: neither at ${own} nor on PATH`, {
    hint: 'Install it ("pip install uv", or see https://docs.astral.sh/uv), or set AIRLOCK_UV to its path.',
  });
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
