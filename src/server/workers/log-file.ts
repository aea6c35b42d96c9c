/**
 * The log of one pack's workers: a file that stdout and stderr of each worker are appended to.
 *
 * The worker holds the descriptor itself, so what it writes is kept when the server dies, and with it a lock on the file:
 * a second worker of the same pack (another host's, or another server's) finds it taken and writes to the next slot,
 * `NAME-DIGEST.2.log`. So no log mixes two workers, and none is set aside while somebody writes to it. A file that has
 * grown too large is set aside before a worker gets it.
 */
import { createHash } from "node:crypto";
import { closeSync, fstatSync, mkdirSync, openSync, readSync, renameSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { openLocked, type TryLock } from "../file-lock.ts";

const logBytesMax = 10 * 1024 * 1024;
const logsKept = 3;

/** A current log's file name; its first group is the pack, as {@link logName} spells it. */
export const logNamePattern = /^(.+)-[0-9a-f]{8}(?:\.[0-9]+)?\.log$/;

/** A pack's name as it stands in its log's file name. */
export function logName(packName: string): string {
  const readable = packName
    .replace(/[^A-Za-z0-9._-]+/g, "-")
    .replace(/^[.-]+/, "")
    .slice(0, 80);
  return readable || "pack";
}

/** The log file's path: readable by name, told apart by folder where two packs share a name. */
export function logPath(folder: string, packName: string, packFolder: string): string {
  const digest = createHash("sha256").update(packFolder).digest("hex").slice(0, 8);
  return join(folder, `${logName(packName)}-${digest}.log`);
}

export class LogFile {
  readonly #firstPath: string;
  readonly #tryLock: TryLock;
  #path: string;
  /** Where the current worker's lines begin. */
  #start = 0;

  constructor(path: string, tryLock: TryLock) {
    this.#firstPath = path;
    this.#path = path;
    this.#tryLock = tryLock;
  }

  /** The file of the last worker. */
  get path(): string {
    return this.#path;
  }

  /** Opens a file that no other worker writes to; the descriptor is the caller's to hand on and to close. */
  open(folderMode = 0o700): number {
    mkdirSync(dirname(this.#firstPath), { recursive: true, mode: folderMode });
    for (let slot = 1; ; slot++) {
      const path = slot === 1 ? this.#firstPath : this.#firstPath.replace(/\.log$/, `.${slot}.log`);
      const descriptor = this.#openSlot(path);
      if (descriptor === undefined) continue;
      this.#path = path;
      this.#start = fstatSync(descriptor).size;
      return descriptor;
    }
  }

  /** The locked file, set aside and begun anew where it was too large; undefined where somebody else writes to it. */
  #openSlot(path: string): number | undefined {
    const descriptor = openLocked(path, "a+", this.#tryLock);
    if (descriptor === undefined || fstatSync(descriptor).size < logBytesMax) return descriptor;
    setAside(path);
    closeSync(descriptor);
    return this.#openSlot(path);
  }

  /**
   * The last lines that the current worker wrote: at most `lines`, from the last `bytesMax` bytes. By default enough to
   * show what was written before a crash besides Python's dump of its threads.
   */
  tail(lines = 40, bytesMax = 8192): string {
    let descriptor: number;
    try {
      descriptor = openSync(this.#path, "r");
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

function setAside(path: string): void {
  for (let index = logsKept - 1; index >= 1; index--) {
    const from = index === 1 ? path : `${path}.${index - 1}`;
    if (statSync(from, { throwIfNoEntry: false })) renameSync(from, `${path}.${index}`);
  }
}
