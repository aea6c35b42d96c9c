/**
 * What Pythons said of themselves, remembered for as long as their executables stay what they were.
 *
 * Asking takes tens of milliseconds, a good part of what starting a worker takes, and the answer only changes with the
 * file. Failures are not remembered.
 */
import { realpath, stat } from "node:fs/promises";
import { type Interpreter, type QueryOptions, queryInterpreter } from "./interpreter.ts";

export class InterpreterMemo {
  readonly #known = new Map<string, { readonly identity: string; readonly interpreter: Interpreter }>();

  /** As {@link queryInterpreter}. */
  async query(python: string, options: QueryOptions): Promise<Interpreter> {
    const identity = await identityOf(python, options.variables["PATH"]);
    const known = this.#known.get(python);
    if (known !== undefined && known.identity === identity) return known.interpreter;
    const interpreter = await queryInterpreter(python, options);
    if (identity !== undefined) this.#known.set(python, { identity, interpreter });
    return interpreter;
  }
}

/** Where a Python is that is named by its path, or by a name on PATH; null where there is none. */
export function pathOf(python: string, searchPath: string | undefined): string | null {
  return python.includes("/") ? python : Bun.which(python, { PATH: searchPath ?? "" });
}

/** Which file a Python is, and in which state; undefined where there is none. */
export async function identityOf(python: string, searchPath: string | undefined): Promise<string | undefined> {
  const found = pathOf(python, searchPath);
  if (found === null) return undefined;
  try {
    const file = await realpath(found);
    const { ino, size, mtimeMs } = await stat(file);
    return `${file}:${ino}:${size}:${mtimeMs}`;
  } catch {
    return undefined;
  }
}
