/**
 * The socket's path in the file system: a folder that nobody else can enter, and a file that is either a live server's
 * or in the way. Binds nothing itself.
 */
import { lstatSync, mkdirSync, rmdirSync, statSync, unlinkSync } from "node:fs";
import { connect } from "node:net";
import { dirname } from "node:path";
import type { Clock } from "../transport/clock.ts";
import { AirlockError } from "../transport/errors.ts";
import type { FileLock, HeldLock } from "./environments/file-lock.ts";

/** How long another server may take to come up at the same path before this one gives up. */
const claimMsMax = 10_000;

/**
 * Makes the socket's folder, or checks the one that is there.
 *
 * @throws AirlockError `unauthorized` where others could put a socket of their own there.
 */
export function ensureSocketFolder(socketPath: string, uid: number): void {
  const folder = dirname(socketPath);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const status = statSync(folder);
  const writableByOthers = (status.mode & 0o022) !== 0;
  const sticky = (status.mode & 0o1000) !== 0;
  // A link of somebody else's can be pointed elsewhere at any time, however safe the folder is that it names now.
  const owners = [status.uid, lstatSync(folder).uid];
  if (owners.every((owner) => owner === uid || owner === 0) && (!writableByOthers || sticky)) return;
  throw new AirlockError("unauthorized", `the folder ${folder} belongs to somebody else or can be written by others`, {
    hint: `make it yours alone (chmod 700 ${folder}), or set AIRLOCK_SOCKET to a path in another folder`,
  });
}

/**
 * Keeps other servers from this path until the claim is released: from looking whether somebody listens to listening,
 * one server at a time.
 *
 * @throws AirlockError `bad_request` where another one keeps its claim.
 */
export async function claimSocketPath(socketPath: string, lockFile: FileLock, clock: Clock): Promise<HeldLock> {
  const patience = new AbortController();
  const timer = clock.after(claimMsMax, () => patience.abort());
  try {
    return await lockFile(`${socketPath}.lock`, patience.signal);
  } catch (error) {
    if (!patience.signal.aborted) throw error;
    throw new AirlockError("bad_request", `another server has been starting at ${socketPath} for some time`, {
      hint: "end it, or set AIRLOCK_SOCKET to another path",
    });
  } finally {
    timer.cancel();
  }
}

/**
 * Makes way for a new socket: a file that no server listens on is removed.
 *
 * @throws AirlockError `bad_request` where a server is running, or where the file is not a socket.
 */
export async function clearSocketPath(socketPath: string): Promise<void> {
  const status = lstatSync(socketPath, { throwIfNoEntry: false });
  if (status === undefined) return;
  if (!status.isSocket()) {
    throw new AirlockError("bad_request", `${socketPath} exists and is not a socket`, {
      hint: "remove it, or set AIRLOCK_SOCKET to another path",
    });
  }
  if (await someoneListens(socketPath)) {
    throw new AirlockError("bad_request", `a server is running at ${socketPath} already`, {
      hint: "connect to that one, stop it, or set AIRLOCK_SOCKET to another path",
    });
  }
  unlinkSync(socketPath);
}

function someoneListens(socketPath: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const probe = connect(socketPath);
  probe.once("connect", () => {
    probe.destroy();
    resolve(true);
  });
  // A backlog that is full answers EAGAIN: somebody is there, only busy.
  probe.once("error", (error: NodeJS.ErrnoException) =>
    resolve(error.code !== "ECONNREFUSED" && error.code !== "ENOENT"),
  );
  return promise;
}

/** Removes the socket file, unless another server has put its own there since. */
export function removeSocketFile(socketPath: string, inode: number): void {
  if (lstatSync(socketPath, { throwIfNoEntry: false })?.ino === inode) unlinkSync(socketPath);
}

/** Removes the socket's folder where nothing is left in it. */
export function removeSocketFolder(socketPath: string): void {
  try {
    rmdirSync(dirname(socketPath));
  } catch {
    // Something else lies there, or its owner was faster.
  }
}
