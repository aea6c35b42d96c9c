/**
 * The server as a whole: the composition root that joins door, router, packs, environments and processes.
 */
import { lstatSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { checkSocketPath, defaultFolders, defaultSocketPath, type Variables } from "../transport/address.ts";
import { type Clock, systemClock, systemTimeOfDay } from "../transport/clock.ts";
import type { Status } from "../transport/control.ts";
import { AirlockError } from "../transport/errors.ts";
import { type Libc, loadLibc } from "../transport/libc.ts";
import { defaultLimits, type Limits } from "../transport/limits.ts";
import { version } from "../version.ts";
import { ControlService } from "./control-service.ts";
import { Door, type ExpectedWorker } from "./door.ts";
import { EnvironmentStore } from "./environments/environments.ts";
import type { FileLock } from "./environments/file-lock.ts";
import { loadManifest, type PackManifest } from "./environments/manifest.ts";
import { findUv, Uv } from "./environments/uv.ts";
import { guardedListener, type OnServerEvent } from "./events.ts";
import { fileLocker } from "./file-lock.ts";
import { Line } from "./line.ts";
import { Pack, type PackServices } from "./pack.ts";
import { PackTable } from "./pack-table.ts";
import { Router } from "./router.ts";
import type { Session } from "./session.ts";
import { claimSocketPath, clearSocketPath, ensureSocketFolder, removeSocketFile } from "./socket-file.ts";
import { logPath } from "./workers/log-file.ts";
import { countMemoryKills } from "./workers/memory-kills.ts";
import { Pace } from "./workers/pace.ts";
import { workerVariables } from "./workers/variables.ts";
import { WorkerLog } from "./workers/worker-log.ts";
import { workerSpawner } from "./workers/worker-process.ts";

export interface ServeOptions {
  /** Path of the Unix socket; AIRLOCK_SOCKET or the user's own by default. */
  readonly socket?: string;
  /**
   * The Python that packs run on unless their manifest asks for another: a path, or a name on PATH; AIRLOCK_PYTHON, else
   * `python3`, by default. A pack that shares its host's torch runs on the host's own version.
   */
  readonly python?: string;
  /** The uv binary; by default AIRLOCK_UV, this project's own environment, then PATH. */
  readonly uv?: string;
  /** Folder of the environments. */
  readonly environments?: string;
  /** Folder of the workers' logs. */
  readonly logs?: string;
  /** Limits that differ from the defaults. */
  readonly limits?: Partial<Limits>;
  /** Environment variables that every worker gets besides its own. */
  readonly workerVariables?: Readonly<Record<string, string>>;
  readonly onEvent?: OnServerEvent;
}

/** A server that is running. */
export interface Server extends AsyncDisposable {
  /** Where clients connect. */
  readonly socketPath: string;
  status(): Status;
  /**
   * Takes no new calls and hosts, lets the calls under way finish in time, then ends workers, the making of environments,
   * and connections, and removes the socket file.
   *
   * @param drainMs what calls under way get; the limit `drainMsMax` by default.
   */
  stop(drainMs?: number): Promise<void>;
}

/**
 * Starts a server in this process.
 *
 * @throws AirlockError `bad_request` where a server runs at this socket already, `unauthorized` where its folder isn't
 * safe, `environment_failed` where there is no uv.
 */
export async function serve(options: ServeOptions = {}): Promise<Server> {
  const variables: Variables = process.env;
  const uid = process.getuid?.() ?? 0;
  const socketPath =
    options.socket === undefined ? defaultSocketPath(variables, uid, tmpdir()) : checkSocketPath(options.socket);
  const libc = loadLibc();
  const clock = systemClock;
  const lockFile = fileLocker(libc.tryLock, clock);
  const folders = defaultFolders(variables, homedir());
  const namedPython = options.python ?? variables["AIRLOCK_PYTHON"];
  const environments = new EnvironmentStore({
    directory: options.environments ?? folders.environments,
    uv: new Uv(options.uv ?? (await findUv())),
    defaultPython: namedPython ?? "python3",
    isDefaultNamed: namedPython !== undefined,
    lockFile,
    clock,
  });
  ensureSocketFolder(socketPath, uid);
  const claim = await claimSocketPath(socketPath, lockFile, clock);
  try {
    await clearSocketPath(socketPath);
    return new RunningServer({
      socketPath,
      uid,
      clock,
      libc,
      lockFile,
      environments,
      limits: { ...defaultLimits, ...options.limits },
      logs: options.logs ?? folders.logs,
      onEvent: guardedListener(options.onEvent ?? (() => undefined)),
      workerVariables: { inherited: variables, added: options.workerVariables ?? {} },
    });
  } finally {
    claim.release();
  }
}

interface Parts {
  readonly socketPath: string;
  readonly uid: number;
  readonly clock: Clock;
  readonly libc: Libc;
  readonly lockFile: FileLock;
  readonly environments: EnvironmentStore;
  readonly limits: Limits;
  readonly logs: string;
  readonly onEvent: OnServerEvent;
  readonly workerVariables: { readonly inherited: Variables; readonly added: Readonly<Record<string, string>> };
}

class RunningServer implements Server {
  readonly socketPath: string;
  readonly #parts: Parts;
  readonly #router: Router;
  readonly #door: Door;
  readonly #expected = new Map<string, ExpectedWorker>();
  readonly #packs: PackTable;
  readonly #inode: number;
  readonly #pace: Pace;
  #stopped: Promise<void> | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.socketPath = parts.socketPath;
    const { limits, clock, onEvent, libc } = parts;
    this.#pace = new Pace(clock);
    const packs = new PackTable({
      packsPerHostMax: limits.packsPerHostMax,
      newPack: (host, manifest) => new Pack(router.nextPeer(), host, manifest, this.#newLog(manifest), services),
    });
    const router = new Router({
      limits,
      clock,
      packs,
      onControl: (call, body) => control.handle(call, body),
    });
    this.#packs = packs;
    this.#router = router;
    const services = this.#servicesForPacks();
    const control = new ControlService({
      packs,
      loadManifest,
      status: () => this.status(),
      answer: (call, value) => router.answer(call, value),
      fail: (call, error) => router.fail(call, error),
      progress: (call, progress) => router.progress(call, progress),
    });
    this.#door = new Door({
      socketPath: parts.socketPath,
      version,
      uid: parts.uid,
      limits,
      clock,
      router,
      libc,
      expected: this.#expected,
      onEvent,
      onHostGone: (host) => this.#hostGone(host),
    });
    this.#inode = lstatSync(parts.socketPath).ino;
  }

  /** A log for the workers that run one after the other in one place of the pack's. */
  #newLog({ name, folder }: PackManifest): WorkerLog {
    const { libc, clock, logs, onEvent } = this.#parts;
    return new WorkerLog({
      path: logPath(logs, name, folder),
      tryLock: libc.tryLock,
      clock,
      timeOfDay: systemTimeOfDay,
      pace: this.#pace,
      onUnwritable: (path, error) => onEvent({ type: "log_unwritable", pack: name, path, reason: String(error) }),
    });
  }

  #servicesForPacks(): PackServices {
    const { clock, limits, onEvent, environments, libc } = this.#parts;
    const spawn = workerSpawner({ libc, clock, pace: this.#pace, countMemoryKills: countMemoryKills() });
    const router = this.#router;
    return {
      clock,
      limits,
      onEvent,
      prepareEnvironment: (pack, onProgress, signal) => {
        const hostPython = pack.host.hello.python?.executable;
        return environments.ensure({ pack: pack.manifest, ...(hostPython && { hostPython }) }, { onProgress, signal });
      },
      spawn: (pack, worker, environment) => {
        const { inherited, added } = this.#parts.workerVariables;
        const variables = workerVariables({
          inherited,
          added: { ...added, ...pack.manifest.env },
          socketPath: this.socketPath,
          token: worker.token,
          sharedTorch: environment.sharedTorch,
        });
        return spawn({ python: environment.python, packFolder: pack.manifest.folder, log: pack.log, variables });
      },
      expect: (worker, pack) => void this.#expected.set(worker.token, { worker, pack }),
      unexpect: (worker) => void this.#expected.delete(worker.token),
      deliver: (call, frame, worker) => router.deliver(call, frame, worker),
      fail: (call, error) => router.fail(call, error),
      progress: (call, progress) => router.progress(call, progress),
      notify: (host, name, value) => router.notify(host, name, value),
      leave: (session, cause) => router.leave(session, cause),
      joinByLine: (host, worker, pack, number) => Line.join(libc, host, worker, pack, number),
    };
  }

  #hostGone(host: Session): void {
    this.#router.leave(host, new AirlockError("disconnected", "the host is gone"));
    this.#packs.closeAll(host);
  }

  status(): Status {
    return { server: { version, pid: process.pid, socket: this.socketPath }, packs: this.#packs.status() };
  }

  stop(drainMs: number = this.#parts.limits.drainMsMax): Promise<void> {
    this.#stopped ??= this.#stop(drainMs);
    return this.#stopped;
  }

  async #stop(drainMs: number): Promise<void> {
    const { clock } = this.#parts;
    const stopped = new AirlockError("server_stopping", "the server was stopped");
    this.#router.stopTakingCalls();
    this.#door.refuseHosts();
    // Of calls over lines only the workers know: each answers when it has done what came before.
    for (const worker of this.#packs.workersOnLines) void this.#router.ask(worker, "idle");
    const untilMs = clock.nowMs() + drainMs;
    while (this.#router.callsWaitedFor > 0 && clock.nowMs() < untilMs) {
      await new Promise<void>((resolve) => clock.after(10, resolve));
    }
    await this.#packs.end(stopped);
    // An environment that was being made is given up by now; what it left on disk must be gone before this process is.
    await this.#parts.environments.settled();
    await this.#stopListening(stopped);
  }

  async #stopListening(reason: AirlockError): Promise<void> {
    const { lockFile, clock } = this.#parts;
    // Bun removes the socket's file by its path, which must not be another server's by then. Without the folder, or
    // with a claim that never ends, there is nothing to protect.
    const claim = await claimSocketPath(this.socketPath, lockFile, clock).catch(() => undefined);
    try {
      await this.#door.close(reason);
      removeSocketFile(this.socketPath, this.#inode);
    } finally {
      claim?.release();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}
