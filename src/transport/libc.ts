/**
 * The only bindings to libc, and with them the only `bun:ffi` outside `src/cuda/`. Linux.
 *
 * Each function is a thin, typed wrapper that turns a failing return value into an {@link Error} with the call's name
 * and errno. Loading is deferred to {@link loadLibc}, so that importing this file does nothing.
 */
import { dlopen, ptr, read } from "bun:ffi";

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_SEQPACKET = 5;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const SHUT_RDWR = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const LOCK_EX = 2;
const LOCK_NB = 4;
const EAGAIN = 11;

/** Who is at the other end of a Unix socket, as the kernel recorded when it connected. */
export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

export interface Libc {
  /** SO_PEERCRED. On a socket pair it names the pair's maker, not the process that holds the other end. */
  peerCredentials(descriptor: number): PeerCredentials;
  /** A connected pair of sockets, both close-on-exec: of streams, or of messages that arrive whole. */
  socketPair(kind?: "stream" | "messages"): readonly [number, number];
  /**
   * Sends bytes together with a copy of a descriptor (`sendmsg`, SCM_RIGHTS), without waiting.
   *
   * @returns false where the socket takes nothing now, or its other end is gone; nothing was sent then.
   */
  sendDescriptor(socket: number, bytes: Uint8Array, descriptor: number): boolean;
  /** Ends a connection for both sides, whoever else holds copies of its ends; what was sent still arrives. */
  shutDown(socket: number): void;
  close(descriptor: number): void;
  /** Tries to take an exclusive `flock`; false where another process holds it. Released by {@link close} or by death. */
  tryLock(descriptor: number): boolean;
}

/**
 * Binds libc.
 *
 * @throws Error where there is no glibc or musl under its usual name.
 */
export function loadLibc(): Libc {
  const { symbols } = openLibc();
  const errno = (): number => {
    const location = symbols.__errno_location();
    return location === null ? 0 : read.i32(location, 0);
  };
  const failed = (call: string): Error => new Error(`${call} failed with errno ${errno()}`);
  return {
    peerCredentials(descriptor) {
      const credentials = new Int32Array(3);
      const length = new Int32Array([credentials.byteLength]);
      if (symbols.getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, ptr(credentials), ptr(length)) !== 0) {
        throw failed("getsockopt(SO_PEERCRED)");
      }
      const [pid = 0, uid = 0, gid = 0] = credentials;
      return { pid, uid, gid };
    },
    socketPair(kind = "stream") {
      const pair = new Int32Array(2);
      const type = (kind === "stream" ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_CLOEXEC;
      if (symbols.socketpair(AF_UNIX, type, 0, ptr(pair)) !== 0) throw failed("socketpair");
      const [near = -1, far = -1] = pair;
      return [near, far];
    },
    sendDescriptor(socket, bytes, descriptor) {
      const message = messageWith(bytes, descriptor);
      return Number(symbols.sendmsg(socket, ptr(message.header), MSG_DONTWAIT | MSG_NOSIGNAL)) === bytes.byteLength;
    },
    shutDown(socket) {
      symbols.shutdown(socket, SHUT_RDWR);
    },
    close(descriptor) {
      symbols.close(descriptor);
    },
    tryLock(descriptor) {
      if (symbols.flock(descriptor, LOCK_EX | LOCK_NB) === 0) return true;
      if (errno() === EAGAIN) return false;
      throw failed("flock");
    },
  };
}

/**
 * A `struct msghdr` on a 64-bit system, for bytes with one descriptor beside them.
 *
 * All of it is returned, so that what the addresses in it lead to stays alive as long as the header does.
 */
function messageWith(bytes: Uint8Array, descriptor: number) {
  const control = new Uint8Array(24);
  const view = new DataView(control.buffer);
  // struct cmsghdr: length with the header, level, type; then the descriptor, padded to a word.
  view.setBigUint64(0, 20n, true);
  view.setInt32(8, SOL_SOCKET, true);
  view.setInt32(12, SCM_RIGHTS, true);
  view.setInt32(16, descriptor, true);
  const vector = new BigUint64Array([BigInt(ptr(bytes)), BigInt(bytes.byteLength)]);
  // name, its length, vector, its length, control, its length, flags.
  const header = new BigUint64Array([0n, 0n, BigInt(ptr(vector)), 1n, BigInt(ptr(control)), 24n, 0n]);
  return { header, vector, control, bytes };
}

/** glibc first, then musl's names for the two processors that Bun has musl builds for. */
const libcNames = ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"] as const;

function openLibc() {
  const failures: unknown[] = [];
  for (const name of libcNames) {
    try {
      return dlopen(name, {
        getsockopt: { args: ["i32", "i32", "i32", "ptr", "ptr"], returns: "i32" },
        socketpair: { args: ["i32", "i32", "i32", "ptr"], returns: "i32" },
        sendmsg: { args: ["i32", "ptr", "i32"], returns: "i64" },
        shutdown: { args: ["i32", "i32"], returns: "i32" },
        close: { args: ["i32"], returns: "i32" },
        flock: { args: ["i32", "i32"], returns: "i32" },
        __errno_location: { args: [], returns: "ptr" },
      });
    } catch (error) {
      failures.push(error);
    }
  }
  throw new AggregateError(failures, `no libc under any of the names ${libcNames.join(", ")}`);
}
