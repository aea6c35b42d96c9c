/**
 * What the workers of a launched host write, told as it comes: each line with the pack's name before it, on standard error.
 *
 * Which workers are meant is seen by the mark that the host's environment has: a server that was joined may have others.
 */
import { readdirSync, readFileSync, statSync, writeSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { defaultFolders } from "../transport/address.ts";
import { systemClock } from "../transport/clock.ts";
import type { Status } from "../transport/control.ts";
import { followLogs } from "./log-follower.ts";

export interface LaunchedLogsOptions {
  status(): Promise<Status>;
  /** What the environment of the host has: `NAME=VALUE`. */
  readonly mark: string;
  readonly write?: (text: string) => void;
}

const lookMs = 200;

/** The time and the process that a log has before each line. */
const stamp = /^\S+Z \d+ /;

export class LaunchedLogs {
  readonly #options: LaunchedLogsOptions;
  readonly #write: (text: string) => void;
  readonly #ended = new AbortController();
  readonly #following: Promise<unknown>;
  /** Names of packs, by the paths of their logs. */
  readonly #packs = new Map<string, string>();
  readonly #marked = new Map<number, boolean>();

  constructor(options: LaunchedLogsOptions) {
    this.#options = options;
    this.#write = options.write ?? ((text) => void writeSync(2, text));
    const known = sizesOfLogs();
    this.#following = Promise.all([
      this.#look(),
      followLogs(known, {
        clock: systemClock,
        find: () => [...this.#packs.keys()],
        write: (bytes, path) => this.#write(marked(this.#packs.get(path) ?? "", bytes)),
        signal: this.#ended.signal,
      }),
    ]);
  }

  /** Looks which workers there are, again and again: nothing tells of those of another server. */
  async #look(): Promise<void> {
    while (!this.#ended.signal.aborted) {
      await this.#note();
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = systemClock.after(lookMs, resolve);
      this.#ended.signal.addEventListener("abort", () => resolve(), { once: true });
      await promise;
      timer.cancel();
    }
  }

  async #note(): Promise<void> {
    // A server that is gone tells nothing more.
    const { packs } = await this.#options.status().catch(() => ({ packs: [] }));
    for (const { name, host, workers } of packs) {
      if (this.#isMarked(host.pid)) for (const { log } of workers) this.#packs.set(log, name);
    }
  }

  #isMarked(pid: number): boolean {
    const known = this.#marked.get(pid);
    if (known !== undefined) return known;
    let isMarked = false;
    try {
      isMarked = readFileSync(`/proc/${pid}/environ`, "latin1").split("\0").includes(this.#options.mark);
    } catch {
      // It has ended.
    }
    this.#marked.set(pid, isMarked);
    return isMarked;
  }

  /** Tells what is left, and no more. */
  async end(): Promise<void> {
    await this.#note();
    this.#ended.abort();
    await this.#following;
  }
}

function marked(pack: string, bytes: Uint8Array): string {
  const lines = Buffer.from(bytes).toString("utf8").split("\n");
  // They are whole lines: after the last comes nothing.
  lines.pop();
  return lines.map((line) => `[${pack}] ${line.replace(stamp, "")}\n`).join("");
}

/** How long the logs are that there are: what is in them is not of this launch. */
function sizesOfLogs(): Map<string, number> {
  const { logs } = defaultFolders(process.env, homedir());
  try {
    return new Map(
      readdirSync(logs).map((name) => {
        const path = join(logs, name);
        return [path, statSync(path, { throwIfNoEntry: false })?.size ?? 0];
      }),
    );
  } catch {
    return new Map();
  }
}
