/**
 * Finds Bun and runs it. Plain Node.js, because there may be no launcher: where npm runs no install scripts, Bun's binary
 * is in one of the packages `@oven/bun-*`, of which npm installs the one that fits this machine. Where it does, Bun's
 * script has moved the binary into the package `bun`, in place of a stand-in.
 */
import { spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readdirSync, readSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const packageFolder = dirname(dirname(fileURLToPath(import.meta.url)));

/** Path of the Bun binary below `folder` or one of the folders above it; undefined where npm installed none. */
export function findBun(folder = packageFolder) {
  for (let at = folder; ; at = dirname(at)) {
    const scope = join(at, "node_modules", "@oven");
    const packages = existsSync(scope) ? readdirSync(scope).filter((name) => name.startsWith("bun-")) : [];
    const places = packages.map((name) => join(scope, name, "bin", "bun"));
    const moved = join(at, "node_modules", "bun", "bin", "bun.exe");
    const found = places.find((path) => existsSync(path)) ?? (isProgram(moved) ? moved : undefined);
    if (found !== undefined || at === dirname(at)) return found;
  }
}

/** Whether the file is a compiled program, as opposed to the script that stands in for one. */
function isProgram(path) {
  if (!existsSync(path)) return false;
  const file = openSync(path, "r");
  try {
    const magic = Buffer.alloc(4);
    readSync(file, magic, 0, 4, 0);
    return magic.toString("latin1") === "\x7fELF";
  } finally {
    closeSync(file);
  }
}

/** Becomes Bun with these arguments where Node can (22.15 and later), else runs it and passes on signals and exit. */
export function becomeBun(bun, args, env = process.env) {
  if (typeof process.execve === "function") process.execve(bun, [bun, ...args], env);
  const child = spawn(bun, args, { stdio: "inherit", env });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("error", (error) => {
    console.error(`${bun} could not be started: ${error.message}`);
    process.exit(1);
  });
  child.on("exit", (code, signal) => process.exit(code ?? 128 + (constants.signals[signal] ?? 0)));
}
