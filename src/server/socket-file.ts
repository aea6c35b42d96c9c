/**
 * The socket's path in the file system: a folder that nobody else can enter, and a file that is either a live server's
 * or in the way. Binds nothing itself.
 */
import { lstatSync, mkdirSync, statSync, unlinkSync } from "node:fs";
import { connect } from "node:net";
import { dirname } from "node:path";
import { AirlockError } from "../transport/errors.ts";

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
  if ((status.uid === uid || status.uid === 0) && (!writableByOthers || sticky)) return;
  throw new AirlockError("unauthorized", `the folder ${folder} belongs to somebody else or can be written by others`, {
    hint: `make it yours alone (chmod 700 ${folder}), or set AIRLOCK_SOCKET to a path in another folder`,
  });
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
