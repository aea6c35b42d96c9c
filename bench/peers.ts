/** The peers in C: compiled when they are needed, into a folder that git doesn't see. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { outputOf } from "./processes.ts";

const sources = join(import.meta.dir, "peers");
/** Also named in peers/pack/sitecustomize.py. */
const built = join(import.meta.dir, ".build");

export interface Peers {
  /** `host SOCKET FOLDER CALLS DEPTH…`, see peers/host.c. */
  readonly host: string;
  readonly worker: string;
  /** The pack whose worker is {@link worker}. */
  readonly pack: string;
}

/** Compiles host and worker with the system's C compiler; undefined where there is none. */
export async function compilePeers(): Promise<Peers | undefined> {
  const compiler = Bun.which("cc") ?? Bun.which("gcc") ?? Bun.which("clang");
  if (compiler === null) return undefined;
  mkdirSync(built, { recursive: true });
  const compile = async (name: string): Promise<string> => {
    const program = join(built, name);
    await outputOf([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, join(sources, `${name}.c`)]);
    return program;
  };
  const [host, worker] = await Promise.all([compile("host"), compile("worker")]);
  return { host, worker, pack: join(sources, "pack") };
}
