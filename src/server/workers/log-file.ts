/**
 * The file of one worker's log: found free, locked, appended to, and set aside when it has grown too large.
 *
 * Invariant: no two logs write to one file. Whoever has it open holds a lock on it, so another worker of the same pack
 * (in its pool, another host's, or another server's) finds it taken and writes to the next slot, `NAME-DIGEST.2.log`.
 * Writes are carried out off the server's thread, one after the other by the caller's care. Knows nothing of lines.
 */
import { createHash } from "node:crypto";
import { closeSync, fstatSync, mkdirSync, renameSync, statSync, write } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { openLocked, type TryLock } from "../file-lock.ts";

/** Past this, a file is set aside: `NAME.log.1`, and the one before it `NAME.log.2`. */
const fileBytesMax = 10 * 1024 * 1024;
/** Files of one log, with the one that is written to. */
const filesKept = 3;

const writeBytes = promisify(write);

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
  #descriptor: number | undefined;
  #bytes = 0;

  constructor(path: string, tryLock: TryLock) {
    this.#firstPath = path;
    this.#path = path;
    this.#tryLock = tryLock;
  }

  /** The file that is, or was last, written to. */
  get path(): string {
    return this.#path;
  }

  /** Takes a file that nobody else writes to. */
  open(folderMode = 0o700): void {
    mkdirSync(dirname(this.#firstPath), { recursive: true, mode: folderMode });
    for (let slot = 1; this.#descriptor === undefined; slot++) {
      const path = slot === 1 ? this.#firstPath : this.#firstPath.replace(/\.log$/, `.${slot}.log`);
      this.#openSlot(path);
    }
  }

  /** Opens the file, if it is free; sets it aside and begins it anew where it is too large. */
  #openSlot(path: string): void {
    for (;;) {
      const descriptor = openLocked(path, "a", this.#tryLock);
      if (descriptor === undefined) return;
      const { size } = fstatSync(descriptor);
      if (size >= fileBytesMax) {
        // Under the lock: nobody else can set aside the same file.
        setAside(path);
        closeSync(descriptor);
        continue;
      }
      this.#path = path;
      this.#descriptor = descriptor;
      this.#bytes = size;
      return;
    }
  }

  /**
   * Appends to the file, or to a fresh one where it has grown too large.
   *
   * @throws Error where the file takes no more. A part may have been written.
   */
  async append(bytes: Uint8Array): Promise<void> {
    if (this.#bytes > 0 && this.#bytes + bytes.byteLength > fileBytesMax) this.#rotate();
    const descriptor = this.#descriptor;
    if (descriptor === undefined) throw new Error(`${this.#path} is not open`);
    for (let from = 0; from < bytes.byteLength; ) {
      const { bytesWritten } = await writeBytes(descriptor, bytes, from);
      from += bytesWritten;
      this.#bytes += bytesWritten;
    }
  }

  #rotate(): void {
    const { path } = this;
    setAside(path);
    this.close();
    this.#openSlot(path);
    // Somebody took the name in between.
    if (this.#descriptor === undefined) this.open();
  }

  /** Lets go of the file and its lock. */
  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }
}

function setAside(path: string): void {
  for (let index = filesKept - 1; index >= 1; index--) {
    const from = index === 1 ? path : `${path}.${index - 1}`;
    if (statSync(from, { throwIfNoEntry: false })) renameSync(from, `${path}.${index}`);
  }
}
