/**
 * The only bindings to libc, and with them the only `bun:ffi` outside `src/cuda/`. Linux.
 *
 * Each function is a thin, typed wrapper that turns a failing return value into an {@link Error} with the call's name
 * and errno. Loading is deferred to {@link loadLibc}, so that importing this file does nothing.
 */
import { dlopen, type Pointer, ptr, read, toArrayBuffer } from "bun:ffi";
import { closeSync, constants, fstatSync, ftruncateSync, openSync, readSync, unlinkSync } from "node:fs";
import {
  controlBytes,
  controlWith,
  mustTryAgain,
  readControl,
  socketAddress,
  systemCallFailed,
} from "./libc-structs.ts";

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_SEQPACKET = 5;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const SHUT_RDWR = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const O_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const LOCK_EX = 2;
const LOCK_NB = 4;
const RLIMIT_CORE = 4;
const RLIMIT_NOFILE = 7;
const ESRCH = 3;
const EAGAIN = 11;
const EINTR = 4;
const EINVAL = 22;
const EPIPE = 32;
const ECONNRESET = 104;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const MFD_NOEXEC_SEAL = 8;
const F_GETFL = 3;
const F_SETFL = 4;
const F_SETOWN = 8;
/** Which signal announces that there is something to read. */
const F_SETSIG = 10;
const O_ASYNC = 0o20000;
const SIGKILL = 9;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MADV_DONTFORK = 10;
const MADV_POPULATE_WRITE = 23;

/** Seals of a memfd, as `fcntl` counts them. */
export const Seal = {
  /** No further seals. */
  seal: 1,
  shrink: 2,
  grow: 4,
  /** No writes, and no writable shared mappings, but through those that there are. */
  futureWrite: 16,
} as const;

/** Who is at the other end of a Unix socket, as the kernel recorded when it connected. */
export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** What one message brought. */
export interface Received {
  /** Bytes that were read; 0 where the other end is closed. */
  readonly count: number;
  /** A copy of a descriptor that came with them, close-on-exec, for the receiver to close. */
  readonly descriptor: number | undefined;
  /** Whether a descriptor was sent that this process had no room for. */
  readonly isTruncated: boolean;
}

export interface Libc extends MemoryCalls {
  /** SO_PEERCRED. On a socket pair it names the pair's maker, not the process that holds the other end. */
  peerCredentials(descriptor: number): PeerCredentials;
  /** A connected pair of sockets, both close-on-exec: of streams, or of messages that arrive whole. */
  socketPair(kind?: "stream" | "messages"): readonly [number, number];
  /** A pipe, both ends close-on-exec: what is written to the second is read from the first. */
  pipe(): readonly [number, number];
  /** A Unix stream socket that is connected to nothing, close-on-exec and non-blocking. */
  streamSocket(): number;
  /**
   * Connects a socket of {@link streamSocket}.
   *
   * @returns false where the listener's queue is full: try again.
   * @throws Error where nobody listens at the path.
   */
  connect(socket: number, path: string): boolean;
  /**
   * Sends what the socket takes, without waiting.
   *
   * @returns how many bytes that was.
   * @throws Error where the other end is gone.
   */
  send(socket: number, bytes: Uint8Array): number;
  /**
   * Reads into `buffer`, with a descriptor that comes along (`recvmsg`, SCM_RIGHTS), without waiting.
   *
   * @returns undefined where nothing has come yet.
   * @throws Error where the connection broke.
   */
  receive(socket: number, buffer: Uint8Array): Received | undefined;
  /**
   * Sends bytes together with copies of one descriptor or two (`sendmsg`, SCM_RIGHTS), without waiting.
   *
   * @returns whether it was sent; `full` where the socket takes nothing now, `gone` where nobody is at its other end.
   */
  sendDescriptors(socket: number, bytes: Uint8Array, ...descriptors: readonly number[]): Sent;
  /** Ends a connection for both sides, whoever else holds copies of its ends; what was sent still arrives. */
  shutDown(socket: number): void;
  /** Has the kernel kill a process group when the other end of a socket pair closes; whoever has this end open keeps it so. */
  killOnHangUp(socket: number, group: number): void;
  close(descriptor: number): void;
  /** Tries to take an exclusive `flock`; false where another process holds it. Released by {@link close} or by death. */
  tryLock(descriptor: number): boolean;
  /** Bounds the descriptors that a process, and what it starts, can have open. Does nothing once the process is gone. */
  limitOpenFiles(pid: number, count: number): void;
  /** Has a process, and what it starts, leave no core file unless it asks for one. */
  forbidCoreFiles(pid: number): void;
  /** Has a process that has one thread, and what it starts, run on these CPUs alone. */
  setAffinity(pid: number, cpus: readonly number[]): void;
  /** Bytes of a page of memory. */
  pageBytes(): number;
}

/** What became of a message. */
export type Sent = "sent" | "full" | "gone";

/** Memory that several processes map, by descriptors, and addresses in this process. */
export interface MemoryCalls {
  /**
   * An empty memfd, close-on-exec, that can be sealed and, where the kernel knows how to forbid that, not be executed.
   *
   * @param name what `/proc` shows.
   */
  createMemory(name: string): number;
  /** The same by `shm_open` and `shm_unlink`: a file in memory without a name, which can't be sealed. */
  createUnlinkedMemory(name: string): number;
  /** Bytes of a file. */
  sizeOf(descriptor: number): number;
  /** Cuts or lengthens a file; what is added is zero, and takes no memory before it is written to. */
  resize(descriptor: number, bytes: number): void;
  /** Adds {@link Seal}s. */
  addSeals(descriptor: number, seals: number): void;
  seals(descriptor: number): number;
  /** Takes the memory for a file's first bytes now, which takes its time. */
  reserve(descriptor: number, bytes: number): void;
  /** Maps a file from its beginning, shared and writable; returns the address. */
  mapShared(descriptor: number, bytes: number): number;
  /** Maps a part of a file so that writing to it changes this mapping alone; `offset` is whole pages. */
  mapPrivate(descriptor: number, offset: number, bytes: number): number;
  unmap(address: number, bytes: number): void;
  /** Makes the pages of a writable mapping present; false where the kernel doesn't know how to (before Linux 5.14). */
  populate(address: number, bytes: number): boolean;
  /** Leaves a mapping out of children that this process forks. */
  dontFork(address: number, bytes: number): void;
  /** What lies at an address, at most 4 GiB; to be used no longer than the mapping is there. */
  viewOf(address: number, bytes: number): Uint8Array<ArrayBuffer>;
  /** Reads from a place in a file; returns how many bytes there were. */
  readAt(descriptor: number, buffer: Uint8Array, offset: number): number;
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
  const failed = (call: string): Error => systemCallFailed(call, errno());
  /** RLIMIT_NOFILE and RLIMIT_CORE of Linux; `hard` is left as it is where it is missing. */
  const setLimit = (pid: number, resource: number, soft: number, hard?: number): void => {
    const limit = new BigUint64Array(2);
    if (symbols.prlimit(pid, resource, null, ptr(limit)) === 0) {
      limit.set([BigInt(soft), hard === undefined ? (limit[1] ?? 0n) : BigInt(hard)]);
      if (symbols.prlimit(pid, resource, ptr(limit), null) === 0) return;
    }
    if (errno() !== ESRCH) throw failed("prlimit");
  };
  const map = (descriptor: number, offset: number, bytes: number, flags: number): number => {
    const address = Number(symbols.mmap(null, bytes, PROT_READ_WRITE, flags, descriptor, offset));
    if (address === -1) throw failed("mmap");
    return address;
  };
  const memory: MemoryCalls = {
    createMemory(name) {
      const bytes = new TextEncoder().encode(`${name}\0`);
      const flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
      const descriptor = symbols.memfd_create(ptr(bytes), flags | MFD_NOEXEC_SEAL);
      if (descriptor >= 0) return descriptor;
      // Linux before 6.3 does not know the flag.
      const older = errno() === EINVAL ? symbols.memfd_create(ptr(bytes), flags) : -1;
      if (older < 0) throw failed("memfd_create");
      return older;
    },
    createUnlinkedMemory(name) {
      // As shm_open does it, which glibc before 2.34 keeps in a library of its own.
      const path = `/dev/shm/${name}`;
      const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
      const descriptor = openSync(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600);
      try {
        unlinkSync(path);
      } catch (error) {
        closeSync(descriptor);
        throw error;
      }
      return descriptor;
    },
    sizeOf: (descriptor) => fstatSync(descriptor).size,
    resize: (descriptor, bytes) => ftruncateSync(descriptor, bytes),
    addSeals(descriptor, seals) {
      if (symbols.fcntl(descriptor, F_ADD_SEALS, seals) !== 0) throw failed("fcntl(F_ADD_SEALS)");
    },
    seals(descriptor) {
      const seals = symbols.fcntl(descriptor, F_GET_SEALS, 0);
      if (seals < 0) throw failed("fcntl(F_GET_SEALS)");
      return seals;
    },
    reserve(descriptor, bytes) {
      while (symbols.fallocate(descriptor, 0, 0, bytes) !== 0) if (errno() !== EINTR) throw failed("fallocate");
    },
    mapShared: (descriptor, bytes) => map(descriptor, 0, bytes, MAP_SHARED),
    mapPrivate: (descriptor, offset, bytes) => map(descriptor, offset, bytes, MAP_PRIVATE),
    unmap(address, bytes) {
      if (symbols.munmap(address as Pointer, bytes) !== 0) throw failed("munmap");
    },
    populate(address, bytes) {
      while (symbols.madvise(address as Pointer, bytes, MADV_POPULATE_WRITE) !== 0) {
        if (errno() === EINVAL) return false;
        if (!mustTryAgain(errno())) throw failed("madvise(MADV_POPULATE_WRITE)");
      }
      return true;
    },
    dontFork(address, bytes) {
      if (symbols.madvise(address as Pointer, bytes, MADV_DONTFORK) !== 0) throw failed("madvise(MADV_DONTFORK)");
    },
    viewOf: (address, bytes) => new Uint8Array(toArrayBuffer(address as Pointer, 0, bytes)),
    readAt: (descriptor, buffer, offset) => readSync(descriptor, buffer, 0, buffer.byteLength, offset),
  };
  return {
    ...memory,
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
    pipe() {
      const ends = new Int32Array(2);
      if (symbols.pipe2(ptr(ends), O_CLOEXEC) !== 0) throw failed("pipe2");
      const [readEnd = -1, writeEnd = -1] = ends;
      return [readEnd, writeEnd];
    },
    streamSocket() {
      const socket = symbols.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      if (socket < 0) throw failed("socket");
      return socket;
    },
    connect(socket, path) {
      const address = socketAddress(path);
      if (symbols.connect(socket, ptr(address), address.byteLength) === 0) return true;
      if (mustTryAgain(errno())) return false;
      throw failed("connect");
    },
    send(socket, bytes) {
      const count = Number(symbols.send(socket, ptr(bytes), bytes.byteLength, MSG_DONTWAIT | MSG_NOSIGNAL));
      if (count >= 0) return count;
      if (mustTryAgain(errno())) return 0;
      throw failed("send");
    },
    receive(socket, buffer) {
      const message = messageOf(buffer, new Uint8Array(controlBytes));
      const count = Number(symbols.recvmsg(socket, ptr(message.header), MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
      if (count >= 0) return { count, ...readControl(message) };
      if (mustTryAgain(errno())) return undefined;
      throw failed("recvmsg");
    },
    sendDescriptors(socket, bytes, ...descriptors) {
      const message = messageOf(bytes, controlWith(descriptors));
      const sent = Number(symbols.sendmsg(socket, ptr(message.header), MSG_DONTWAIT | MSG_NOSIGNAL));
      if (sent === bytes.byteLength) return "sent";
      return sent < 0 && [EPIPE, ECONNRESET].includes(errno()) ? "gone" : "full";
    },
    shutDown(socket) {
      symbols.shutdown(socket, SHUT_RDWR);
    },
    killOnHangUp(socket, group) {
      const asked =
        symbols.fcntl(socket, F_SETOWN, -group) === 0 &&
        symbols.fcntl(socket, F_SETSIG, SIGKILL) === 0 &&
        symbols.fcntl(socket, F_SETFL, symbols.fcntl(socket, F_GETFL, 0) | O_ASYNC) === 0;
      if (!asked) throw failed("fcntl(F_SETOWN)");
    },
    close(descriptor) {
      symbols.close(descriptor);
    },
    tryLock(descriptor) {
      if (symbols.flock(descriptor, LOCK_EX | LOCK_NB) === 0) return true;
      if (errno() === EAGAIN) return false;
      throw failed("flock");
    },
    limitOpenFiles: (pid, count) => setLimit(pid, RLIMIT_NOFILE, count, count),
    forbidCoreFiles: (pid) => setLimit(pid, RLIMIT_CORE, 0),
    setAffinity(pid, cpus) {
      const mask = new Uint8Array(Math.ceil((Math.max(...cpus) + 1) / 64) * 8);
      for (const cpu of cpus) mask[cpu >> 3] = (mask[cpu >> 3] ?? 0) | (1 << (cpu & 7));
      if (symbols.sched_setaffinity(pid, mask.byteLength, ptr(mask)) === 0 || errno() === ESRCH) return;
      throw failed("sched_setaffinity");
    },
    pageBytes: () => symbols.getpagesize(),
  };
}

/**
 * A `struct msghdr` on a 64-bit system, for bytes with room for descriptors beside them.
 *
 * All of it is returned, so that what the addresses in it lead to stays alive as long as the header does.
 */
function messageOf(bytes: Uint8Array, control: Uint8Array) {
  const vector = new BigUint64Array([BigInt(ptr(bytes)), BigInt(bytes.byteLength)]);
  // name, its length, vector, its length, control, its length, flags.
  const parts = [0n, 0n, BigInt(ptr(vector)), 1n, BigInt(ptr(control)), BigInt(control.byteLength), 0n];
  return { header: new BigUint64Array(parts), vector, control, bytes };
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
        pipe2: { args: ["ptr", "i32"], returns: "i32" },
        socket: { args: ["i32", "i32", "i32"], returns: "i32" },
        connect: { args: ["i32", "ptr", "u32"], returns: "i32" },
        send: { args: ["i32", "ptr", "u64", "i32"], returns: "i64" },
        recvmsg: { args: ["i32", "ptr", "i32"], returns: "i64" },
        sendmsg: { args: ["i32", "ptr", "i32"], returns: "i64" },
        shutdown: { args: ["i32", "i32"], returns: "i32" },
        close: { args: ["i32"], returns: "i32" },
        flock: { args: ["i32", "i32"], returns: "i32" },
        prlimit: { args: ["i32", "i32", "ptr", "ptr"], returns: "i32" },
        sched_setaffinity: { args: ["i32", "u64", "ptr"], returns: "i32" },
        memfd_create: { args: ["ptr", "u32"], returns: "i32" },
        fcntl: { args: ["i32", "i32", "i32"], returns: "i32" },
        fallocate: { args: ["i32", "i32", "i64", "i64"], returns: "i32" },
        mmap: { args: ["ptr", "u64", "i32", "i32", "i32", "i64"], returns: "i64" },
        munmap: { args: ["ptr", "u64"], returns: "i32" },
        madvise: { args: ["ptr", "u64", "i32"], returns: "i32" },
        getpagesize: { args: [], returns: "i32" },
        __errno_location: { args: [], returns: "ptr" },
      });
    } catch (error) {
      failures.push(error);
    }
  }
  throw new AggregateError(failures, `no libc under any of the names ${libcNames.join(", ")}`);
}
