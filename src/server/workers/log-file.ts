/**
 * The log of one pack's workers: a file that stdout and stderr of each worker are appended to.
 *
 * The worker holds the descriptor itself, so what it writes is kept when the server dies. The file is set aside when it
 * has grown too large, which is looked at before each spawn.
 */
import { createHash } from "node:crypto";
import { closeSync, fstatSync, mkdirSync, openSync, readSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";

const logBytesMax = 10 * 1024 * 1024;
const logsKept = 3;

/** A current log's file name; its first group is the pack. */
export const logNamePattern = /^(.+)-[0-9a-f]{8}\.log$/;

/** The log file's path: readable by name, told apart by folder where two packs share a name. */
export function logPath(folder: string, packName: string, packFolder: string): string {
  const readable =
    packName
      .replace(/[^A-Za-z0-9._-]+/g, "-")
      .replace(/^[.-]+/, "")
      .slice(0, 80) || "pack";
  const digest = createHash("sha256").update(packFolder).digest("hex").slice(0, 8);
  return join(folder, `${readable}-${digest}.log`);
}

export class LogFile {
  readonly path: string;
  /** Where the current worker's lines begin. */
  #start = 0;

  constructor(path: string) {
    this.path = path;
  }

  /** Opens the file for a new worker; the descriptor is the caller's to close. */
  open(folderMode = 0o700): number {
    mkdirSync(join(this.path, ".."), { recursive: true, mode: folderMode });
    this.#rotate();
    const descriptor = openSync(this.path, "a+", 0o600);
    this.#start = fstatSync(descriptor).size;
    return descriptor;
  }

  #rotate(): void {
    const size = statSync(this.path, { throwIfNoEntry: false })?.size ?? 0;
    if (size < logBytesMax) return;
    for (let index = logsKept - 1; index >= 1; index--) {
      const from = index === 1 ? this.path : `${this.path}.${index - 1}`;
      if (statSync(from, { throwIfNoEntry: false })) renameSync(from, `${this.path}.${index}`);
    }
  }

  /** The last lines that the current worker wrote: at most `lines`, from the last `bytesMax` bytes. */
  tail(lines = 20, bytesMax = 8192): string {
    let descriptor: number;
    try {
      descriptor = openSync(this.path, "r");
    } catch {
      return "";
    }
    try {
      const { size } = fstatSync(descriptor);
      const from = Math.max(Math.min(this.#start, size), size - bytesMax);
      const buffer = Buffer.alloc(Math.max(0, size - from));
      const read = readSync(descriptor, buffer, 0, buffer.byteLength, from);
      return buffer.toString("utf8", 0, read).trimEnd().split("\n").slice(-lines).join("\n");
    } finally {
      closeSync(descriptor);
    }
  }
}
