/**
 * Where things lie by default: the server's socket, and the folders for environments, logs and state. Reads the
 * environment that it is given; touches no file. Twin of `worker/src/comfy_airlock/wire/address.py` for the socket.
 */
import { join } from "node:path";
import { AirlockError } from "./errors.ts";

/** Environment variables, as `process.env` has them. */
export type Variables = Readonly<Record<string, string | undefined>>;

/** `sun_path` of a Unix socket address, with its terminating zero. */
const socketPathBytesMax = 107;

/**
 * The path, if the kernel takes it as a socket's.
 *
 * @param hint how to come by a shorter one.
 * @throws AirlockError `bad_request`.
 */
export function checkSocketPath(path: string, hint = "set AIRLOCK_SOCKET to a shorter path"): string {
  const bytes = Buffer.byteLength(path);
  if (bytes <= socketPathBytesMax) return path;
  throw new AirlockError(
    "bad_request",
    `the socket path ${path} has ${bytes} bytes; a Unix socket takes ${socketPathBytesMax}`,
    { hint },
  );
}

/** The socket that servers and clients meet at: AIRLOCK_SOCKET, else a folder that only this user can enter. */
export function defaultSocketPath(variables: Variables, uid: number, temporaryFolder: string): string {
  if (variables["AIRLOCK_SOCKET"]) return checkSocketPath(variables["AIRLOCK_SOCKET"]);
  const runtime = variables["XDG_RUNTIME_DIR"];
  const folder = runtime ? join(runtime, "airlock") : join(temporaryFolder, `airlock-${uid}`);
  return checkSocketPath(join(folder, "server.sock"));
}

export interface Folders {
  /** Python environments, one folder each. */
  readonly environments: string;
  /** Libraries that were compiled on this machine. */
  readonly libraries: string;
  /** Log files of workers. */
  readonly logs: string;
}

/** The folders of the XDG base directory specification, with `airlock/` below each. */
export function defaultFolders(variables: Variables, home: string): Folders {
  const cache = variables["XDG_CACHE_HOME"] || join(home, ".cache");
  const state = variables["XDG_STATE_HOME"] || join(home, ".local", "state");
  return {
    environments: join(cache, "airlock", "environments"),
    libraries: join(cache, "airlock", "libraries"),
    logs: join(state, "airlock", "logs"),
  };
}
