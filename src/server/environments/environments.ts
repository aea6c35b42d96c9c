/**
 * The Python environments of all packs: one for each distinct set of needs, made when first asked for and kept.
 *
 * Invariant: what {@link EnvironmentStore.ensure} returns is whole and runs, whoever made it. One environment is made
 * once, however many ask, in this process (they share the work) or in others (they wait for the lock of its key).
 * It starts no workers, and never deletes an environment that is whole.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type Clock, systemClock } from "../../transport/clock.ts";
import { AirlockError, toAirlockError } from "../../transport/errors.ts";
import { buildEnvironment, removeUnfinished, unfinishedKeys } from "./environment-build.ts";
import { type EnvironmentPlan, planEnvironment } from "./environment-plan.ts";
import { pythonOf, readRecord } from "./environment-record.ts";
import type { FileLock, HeldLock } from "./file-lock.ts";
import { pickInterpreter } from "./interpreter.ts";
import { InterpreterMemo } from "./interpreter-memo.ts";
import type { PackManifest } from "./manifest.ts";
import type { EnvironmentProgress, StageReport } from "./progress.ts";
import type { SharedTorch } from "./shared-torch.ts";
import { SharedTorchMemo } from "./shared-torch-memo.ts";
import { SharedWork } from "./shared-work.ts";
import type { Uv } from "./uv.ts";

export type { PackManifest };

const waitWorthTellingMs = 200;

export interface EnvironmentStoreOptions {
  /** Where the environments lie, absolute; made if need be. */
  readonly directory: string;
  readonly uv: Uv;
  /** The Python that packs run on unless they need another: an absolute path, or a name on PATH. */
  readonly defaultPython: string;
  /** Somebody named it: that it doesn't run is an error, where another would be looked for otherwise. */
  readonly isDefaultNamed?: boolean;
  /** Keeps other processes from making the same environment at the same time. */
  readonly lockFile: FileLock;
  readonly clock?: Clock;
}

export interface EnvironmentRequest {
  readonly pack: Pick<PackManifest, "name" | "file" | "dependencies" | "requiresPython" | "shareTorch">;
  /** The Python that the host runs on; needed where the pack shares its torch. */
  readonly hostPython?: string;
}

export interface EnsureOptions {
  readonly onProgress?: (progress: EnvironmentProgress) => void;
  /** Ends the wait; the work too, unless others wait for it. */
  readonly signal?: AbortSignal;
}

/** An environment that is ready. */
export interface Environment {
  readonly directory: string;
  /** Its Python executable. */
  readonly python: string;
  /** The fingerprint, and the last part of {@link directory}. */
  readonly key: string;
  /** e.g. `3.12.4`. */
  readonly pythonVersion: string;
  /** The host's torch, where the pack shares it. */
  readonly sharedTorch?: SharedTorch;
  /** Whether it was made just now. */
  readonly fresh: boolean;
}

export class EnvironmentStore {
  readonly directory: string;
  readonly #uv: Uv;
  readonly #defaultPython: string;
  readonly #isDefaultNamed: boolean;
  readonly #lockFile: FileLock;
  readonly #clock: Clock;
  readonly #interpreters = new InterpreterMemo();
  readonly #torches = new SharedTorchMemo();
  /** Whether each was made by this run of the work, by key. */
  readonly #making = new SharedWork<boolean, StageReport>();
  readonly #asked = new Set<Promise<Environment>>();

  constructor(options: EnvironmentStoreOptions) {
    this.directory = options.directory;
    this.#uv = options.uv;
    this.#defaultPython = options.defaultPython;
    this.#isDefaultNamed = options.isDefaultNamed ?? false;
    this.#lockFile = options.lockFile;
    this.#clock = options.clock ?? systemClock;
  }

  readonly #query: typeof InterpreterMemo.prototype.query = (python, options) =>
    this.#interpreters.query(python, options);

  /**
   * The environment for a pack, made if there is none that is whole.
   *
   * @throws AirlockError `environment_failed` if it can't be made, with uv's words in `details.log`; `cancelled` if the
   *   signal aborts; `manifest_invalid` if `requiresPython` is malformed. Each names the pack.
   */
  async ensure(request: EnvironmentRequest, options: EnsureOptions = {}): Promise<Environment> {
    const environment = this.#ensure(request, options);
    this.#asked.add(environment);
    try {
      return await environment;
    } finally {
      this.#asked.delete(environment);
    }
  }

  /**
   * The torch that packs share with hosts that run on this Python: a path, or a name on PATH.
   *
   * @throws AirlockError `environment_failed` where it does not run or has none
   */
  async torchOf(python: string): Promise<SharedTorch> {
    return await this.#torches.probe(python, { variables: this.#uv.variables, clock: this.#clock });
  }

  /** Settles when nobody asks for an environment and none is being made or cleaned up after; for use after an abort. */
  async settled(): Promise<void> {
    await Promise.allSettled([...this.#asked]);
    await this.#making.idle();
  }

  async #ensure(request: EnvironmentRequest, options: EnsureOptions): Promise<Environment> {
    const pack = request.pack.name;
    const { onProgress, signal } = options;
    const onReport = onProgress && ((report: StageReport) => onProgress({ pack, ...report }));
    try {
      await mkdir(this.directory, { recursive: true, mode: 0o700 });
      onReport?.({ stage: "interpreter", message: "choosing a Python" });
      const plan = await this.#plan(request, signal);
      const work = (shared: AbortSignal, report: (report: StageReport) => void) => this.#make(plan, shared, report);
      const fresh = await this.#making.join(plan.key, work, { onReport, signal });
      onReport?.({ stage: "ready", message: `the environment ${plan.key} is ready` });
      return this.#environment(plan, fresh);
    } catch (thrown) {
      const { code, message, details } = toAirlockError(thrown, "environment_failed");
      // Whoever waits for the same environment has a pack of its own, which is the one to name.
      const named = message.includes(JSON.stringify(pack)) || code === "manifest_invalid";
      const told = named ? message : `the environment of the pack ${JSON.stringify(pack)}: ${message}`;
      throw new AirlockError(code, told, { ...details, pack }, { cause: thrown });
    }
  }

  async #plan({ pack, hostPython }: EnvironmentRequest, signal: AbortSignal | undefined): Promise<EnvironmentPlan> {
    const { name, file, requiresPython, shareTorch } = pack;
    const search = { uv: this.#uv, scratch: this.directory, query: this.#query, signal, clock: this.#clock };
    if (!shareTorch) {
      const [defaultPython, isDefaultNamed] = [this.#defaultPython, this.#isDefaultNamed];
      const request = { pack: name, file, requiresPython, defaultPython, isDefaultNamed };
      return planEnvironment(pack, await pickInterpreter(request, search));
    }
    if (hostPython === undefined) {
      const message = `the pack ${JSON.stringify(name)} shares the host's torch, and the host did not name its Python`;
      throw new AirlockError("environment_failed", message, { hint: "Leave share_torch out of the pack's manifest." });
    }
    const options = { variables: this.#uv.variables, signal, clock: this.#clock };
    const [sharedTorch] = await Promise.all([
      this.#torches.probe(hostPython, options),
      // Remembered for when it is needed, a moment later; whoever asks then is told what is wrong with it.
      this.#query(hostPython, options).catch(() => undefined),
    ]);
    const request = { pack: name, file, requiresPython, minor: sharedTorch.python, defaultPython: hostPython };
    return planEnvironment(pack, await pickInterpreter(request, search), sharedTorch);
  }

  /** Returns whether it had to be made. */
  async #make(plan: EnvironmentPlan, signal: AbortSignal, report: (report: StageReport) => void): Promise<boolean> {
    if (await this.#isWhole(plan, signal)) return false;
    const lock = await this.#lock(plan, signal, report);
    try {
      // Whoever held the lock before may have made it.
      if (await this.#isWhole(plan, signal)) return false;
      await buildEnvironment(this.directory, plan, { uv: this.#uv, signal, report });
    } finally {
      lock.release();
    }
    await this.#sweep();
    return true;
  }

  /** Removes what makers of other environments left when they were killed: what is locked is still being made. */
  async #sweep(): Promise<void> {
    for (const key of await unfinishedKeys(this.directory)) {
      try {
        const lock = await this.#lockFile(lockPath(this.directory, key), AbortSignal.abort());
        await removeUnfinished(this.directory, key).finally(() => lock.release());
      } catch {
        // Somebody is at work on it, or it can't be removed: no reason to fail who asked for another one.
      }
    }
  }

  /** Waits for the lock of the plan's key; says so where it is not to be had at once. */
  async #lock({ key }: EnvironmentPlan, signal: AbortSignal, report: (report: StageReport) => void): Promise<HeldLock> {
    const waiting = this.#clock.after(waitWorthTellingMs, () =>
      report({ stage: "waiting", message: "waiting for whoever else is making this environment" }),
    );
    try {
      return await this.#lockFile(lockPath(this.directory, key), signal);
    } finally {
      waiting.cancel();
    }
  }

  /** Whether the environment was finished and still runs: the Python beneath it may have been removed or replaced. */
  async #isWhole(plan: EnvironmentPlan, signal: AbortSignal): Promise<boolean> {
    const directory = join(this.directory, plan.key);
    if ((await readRecord(directory))?.key !== plan.key) return false;
    try {
      const options = { variables: this.#uv.variables, signal, clock: this.#clock };
      return (await this.#query(pythonOf(directory), options)).version === plan.interpreter.version;
    } catch (thrown) {
      if (toAirlockError(thrown).code === "cancelled") throw thrown;
      return false;
    }
  }

  #environment({ key, interpreter, sharedTorch }: EnvironmentPlan, fresh: boolean): Environment {
    const directory = join(this.directory, key);
    const shared = sharedTorch && { sharedTorch };
    return { directory, python: pythonOf(directory), key, pythonVersion: interpreter.version, ...shared, fresh };
  }
}

function lockPath(directory: string, key: string): string {
  return join(directory, `${key}.lock`);
}
