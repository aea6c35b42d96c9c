/**
 * The library by which torch makes tensors in shared memory that is free (worker/native): compiled once for each
 * user and version of it. Loaded by hosts and workers, and never here.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";

const folderOfSources = join(import.meta.dir, "..", "..", "..", "worker", "native");
const sources = ["nursery.c", "redirect.c", "redirect.h"].map((name) => join(folderOfSources, name));
const flags = ["-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread"];
/** It takes a fifth of a second. */
const compileMsMax = 20_000;

export interface NurseryOptions {
  /** Where it is kept, made where there is none. */
  readonly folder: string;
  /** The C compiler; null where there is none. The first on PATH by default. */
  readonly compiler?: string | null;
  /** Told why there is none, once: hosts and workers copy all that they send then. */
  readonly onMissing: (reason: string) => void;
}

export class NurseryLibrary {
  readonly #options: NurseryOptions;
  readonly #ends = new AbortController();
  #path: Promise<string | undefined> | undefined;

  constructor(options: NurseryOptions) {
    this.#options = options;
  }

  /** Its path, compiled when it is first asked for; undefined where it can't be. */
  find(): Promise<string | undefined> {
    this.#path ??= compiled(this.#options, this.#ends.signal).catch((error: unknown) => {
      if (!this.#ends.signal.aborted) this.#options.onMissing(error instanceof Error ? error.message : String(error));
      return undefined;
    });
    return this.#path;
  }

  /** Gives up what is being compiled, and waits for its end. */
  async close(): Promise<void> {
    this.#ends.abort();
    await this.#path;
  }
}

/** The first C compiler on PATH. */
export function findCompiler(): string | null {
  return Bun.which("cc") ?? Bun.which("gcc") ?? Bun.which("clang");
}

async function compiled(options: NurseryOptions, signal: AbortSignal): Promise<string> {
  const { folder, compiler = findCompiler() } = options;
  const made = createHash("sha256").update(flags.join(" "));
  for (const each of sources) made.update(readFileSync(each));
  const digest = made.digest("hex").slice(0, 16);
  const path = join(folder, `nursery-${process.arch}-${digest}.so`);
  if (existsSync(path)) return path;
  if (compiler === null) throw new Error("there is no C compiler (cc, gcc or clang) on PATH");
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  // Put in place whole: other servers of this user may be at it, too.
  const unfinished = `${path}.${crypto.randomUUID()}`;
  try {
    await compile([compiler, ...flags, "-o", unfinished, ...sources.filter((each) => each.endsWith(".c"))], signal);
    renameSync(unfinished, path);
  } finally {
    rmSync(unfinished, { force: true });
  }
  return path;
}

async function compile(command: readonly string[], signal: AbortSignal): Promise<void> {
  const compiler = Bun.spawn([...command], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
    timeout: compileMsMax,
    signal,
  });
  const [said, code] = await Promise.all([compiler.stderr.text(), compiler.exited]);
  if (code !== 0) throw new Error(`${command[0]} failed (${compiler.signalCode ?? code}): ${said.trim()}`);
}
