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
import { newSegmentMaker, type SegmentKind, type SegmentMaker } from "../transport/segment-file.ts";
import { version } from "../version.ts";
import { ControlService } from "./control-service.ts";
import { Door, type ExpectedWorker } from "./door.ts";
import { EnvironmentStore } from "./environments/environments.ts";
import type { FileLock } from "./environments/file-lock.ts";
import { type LimitsTable, limitPolicy } from "./environments/limits-schema.ts";
import { checkGivenManifest, loadManifest, type PackManifest } from "./environments/manifest.ts";
import { findUv, Uv } from "./environments/uv.ts";
import { guardedListener, type OnServerEvent } from "./events.ts";
import { fileLocker } from "./file-lock.ts";
import { stampOf } from "./folder-stamp.ts";
import { HostReports } from "./host-reports.ts";
import { Line } from "./line.ts";
import { Pack } from "./pack.ts";
import { PackTable } from "./pack-table.ts";
import { Router } from "./router.ts";
import { Segments } from "./segments.ts";
import type { Session } from "./session.ts";
import { Slot } from "./slot.ts";
import type { SlotServices } from "./slot-services.ts";
import { claimSocketPath, clearSocketPath, ensureSocketFolder, removeSocketFile } from "./socket-file.ts";
import { ForkServers } from "./workers/fork-servers.ts";
import type { Confiner } from "./workers/limits/confiner.ts";
import { systemKernel } from "./workers/limits/kernel.ts";
import type { LimitPolicy } from "./workers/limits/resource-limits.ts";
import { systemConfiner } from "./workers/limits/system-confiner.ts";
import { logPath } from "./workers/log-file.ts";
import { pssOf } from "./workers/memory.ts";
import { countMemoryKills } from "./workers/memory-kills.ts";
import { NurseryLibrary } from "./workers/nursery.ts";
import { Pace } from "./workers/pace.ts";
import { commonVariables, sharedTorchVariable, workerVariables } from "./workers/variables.ts";
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
  /**
   * A host's Python whose torch is imported as the server starts, for the first worker that shares it; that waits for the
   * import otherwise. None by default.
   */
  readonly torchOf?: string;
  /** The uv binary; by default AIRLOCK_UV, this project's own environment, then PATH. */
  readonly uv?: string;
  /** Folder of the environments. */
  readonly environments?: string;
  /** Folder of libraries that are compiled on this machine, for hosts and workers. */
  readonly libraries?: string;
  /** Folder of the workers' logs. */
  readonly logs?: string;
  /**
   * How memory is made that hosts and workers share: `memfd`, which the kernel keeps receivers from writing to, by default;
   * `shm`, which it doesn't, is for tests and for kernels that cannot seal (Linux before 5.1), where it is taken anyway.
   */
  readonly segments?: SegmentKind;
  /** Limits that differ from the defaults. */
  readonly limits?: Partial<Limits>;
  /**
   * What packs may use: for those whose manifest doesn't say, and at most. The keys are those of a manifest's `limits`;
   * docs/limits.md says how each is held.
   */
  readonly packLimits?: { readonly defaults?: LimitsTable; readonly max?: LimitsTable };
  /** Environment variables that every worker gets besides its own. */
  readonly workerVariables?: Readonly<Record<string, string>>;
  readonly onEvent?: OnServerEvent;
}

/** A server that is running. */
export interface Server extends AsyncDisposable {
  /** Where clients connect. */
  readonly socketPath: string;
  /** Settles when it has stopped, whoever asked for that. */
  readonly ended: Promise<void>;
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
 * @throws AirlockError `bad_request` where a server runs at this socket already or a limit is none, `unauthorized` where its folder isn't
 * safe, `environment_failed` where there is no uv.
 */
export async function serve(options: ServeOptions = {}): Promise<Server> {
  const variables: Variables = process.env;
  const uid = process.getuid?.() ?? 0;
  const socketPath =
    options.socket === undefined ? defaultSocketPath(variables, uid, tmpdir()) : checkSocketPath(options.socket);
  const policy = limitPolicy(options.packLimits ?? {});
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
  const onEvent = guardedListener(options.onEvent ?? (() => undefined));
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
      policy,
      segmentMaker: newSegmentMaker(libc, options.segments ?? "memfd"),
      nursery: new NurseryLibrary({
        folder: options.libraries ?? folders.libraries,
        onMissing: (reason) => onEvent({ type: "nursery_missing", reason }),
      }),
      logs: options.logs ?? folders.logs,
      onEvent,
      workerVariables: { inherited: variables, added: options.workerVariables ?? {} },
      torchOf: options.torchOf,
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
  readonly policy: LimitPolicy;
  readonly segmentMaker: SegmentMaker;
  readonly nursery: NurseryLibrary;
  readonly logs: string;
  readonly onEvent: OnServerEvent;
  readonly workerVariables: { readonly inherited: Variables; readonly added: Readonly<Record<string, string>> };
  readonly torchOf: string | undefined;
}

class RunningServer implements Server {
  readonly socketPath: string;
  readonly #parts: Parts;
  readonly #router: Router;
  readonly #door: Door;
  readonly #expected = new Map<string, ExpectedWorker>();
  readonly #packs: PackTable;
  readonly #segments: Segments;
  readonly #hostReports: HostReports;
  readonly #inode: number;
  readonly #confiner: Confiner;
  readonly #pace: Pace;
  readonly #forkServers: ForkServers;
  #stopped: Promise<void> | undefined;
  readonly #ended = Promise.withResolvers<void>();

  constructor(parts: Parts) {
    this.#parts = parts;
    this.socketPath = parts.socketPath;
    const { limits, clock, onEvent, libc } = parts;
    this.#pace = new Pace(clock);
    this.#forkServers = new ForkServers({ libc, clock, variables: commonVariables(parts.workerVariables.inherited) });
    const packs = new PackTable({
      packsPerHostMax: limits.packsPerHostMax,
      newPack: (host, manifest) =>
        new Pack({
          host,
          manifest,
          newSlot: (pack) => new Slot(router.nextPeer(), host, pack, this.#newLog(manifest), services),
          prepareEnvironment: (pack, onProgress, signal) => {
            const hostPython = host.hello.python?.executable;
            const request = { pack: pack.manifest, ...(hostPython && { hostPython }) };
            return parts.environments.ensure(request, { onProgress, signal });
          },
          describeLimits: (limits) => this.#confiner.describe(limits),
        }),
    });
    const segments = new Segments({
      maker: parts.segmentMaker,
      limits,
      packOf: (host, peer) => packs.get(host, peer),
      close: libc.close,
      notify: (session, name, value) => router.notify(session, name, value),
    });
    this.#segments = segments;
    this.#hostReports = new HostReports({
      clock,
      notify: (host, name, value) => router.notify(host, name, value),
      ownedBy: (host) => segments.ownedBy(host),
    });
    const router = new Router({
      limits,
      clock,
      packs,
      segments,
      onControl: (call, body) => control.handle(call, body),
    });
    this.#packs = packs;
    this.#router = router;
    const services = this.#servicesForSlots();
    const control = new ControlService({
      packs,
      segments,
      loadManifest: async (folder, given) =>
        this.#confiner.resolve(await (given ? checkGivenManifest(folder, given) : loadManifest(folder))),
      status: () => this.status(),
      look: async () => void (await Promise.all([packs.look(), this.#hostReports.look(packs.hosts)])),
      nursery: () => parts.nursery.find(),
      memoryTold: (host, report) => this.#hostReports.take(host, report),
      stop: (drainMs) => void this.stop(drainMs),
      isStopping: () => this.#stopped !== undefined,
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
      sealsSegments: parts.segmentMaker.sealed,
      expected: this.#expected,
      onEvent,
      onHostGone: (host) => this.#hostGone(host),
    });
    this.#inode = lstatSync(parts.socketPath).ino;
    // Last: it may move this process to a cgroup of its own, which only a server that runs moves back.
    this.#confiner = systemConfiner(libc, clock, parts.policy);
    if (parts.torchOf !== undefined) void this.#importTorchAhead(parts.torchOf);
  }

  /** Before a pack asks for it, while the host imports its own. */
  async #importTorchAhead(python: string): Promise<void> {
    const { environments, onEvent, workerVariables } = this.#parts;
    const { inherited, added } = workerVariables;
    try {
      const torch = await environments.torchOf(python);
      const variables = { ...commonVariables(inherited), ...added, ...sharedTorchVariable(torch) };
      await this.#forkServers.warm(torch.executable, variables);
    } catch (error) {
      onEvent({ type: "torch_not_imported", python, reason: error instanceof Error ? error.message : String(error) });
    }
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

  #servicesForSlots(): SlotServices {
    const { clock, limits, onEvent, libc } = this.#parts;
    const forkServers = this.#forkServers;
    const spawn = workerSpawner({ libc, clock, pace: this.#pace, countMemoryKills: countMemoryKills(), forkServers });
    const router = this.#router;
    return {
      clock,
      limits,
      onEvent,
      spawn: async (slot, { token }, environment) => {
        void this.#parts.nursery.find(); // It is there by the time that this one sends a tensor.
        const { inherited, added } = this.#parts.workerVariables;
        const variables = workerVariables({
          inherited,
          added: { ...added, ...slot.manifest.env },
          socketPath: this.socketPath,
          token,
          sharedTorch: environment.sharedTorch,
        });
        const worker = await spawn({
          python: environment.python,
          packFolder: slot.manifest.folder,
          log: slot.log,
          variables,
          // Libraries count the CPUs that there are as they are loaded.
          mayFork: environment.sharedTorch !== undefined && slot.manifest.limits.cpus === undefined,
          onNotForked: (reason) => onEvent({ type: "worker_not_forked", pack: slot.name, reason }),
        });
        return this.#confiner.confine(worker, slot.manifest.limits);
      },
      expect: (worker, slot) => void this.#expected.set(worker.token, { worker, slot }),
      unexpect: (worker) => void this.#expected.delete(worker.token),
      deliver: (call, frame, worker) => router.deliver(call, frame, worker),
      fail: (call, error) => router.fail(call, error),
      progress: (call, progress) => router.progress(call, progress),
      notify: (host, name, value) => router.notify(host, name, value),
      leave: (session, cause) => router.leave(session, cause),
      ask: (worker, method, withinMs, keywords) => router.ask(worker, method, withinMs, keywords),
      callsOf: (worker) => router.callsOf(worker),
      ownedBy: (worker) => this.#segments.ownedBy(worker),
      joinByLine: (host, worker, peer, number) => {
        return this.#segments.passShared(worker) ? Line.join(libc, host, worker, peer, number) : undefined;
      },
      pssOf: (pid) => pssOf(systemKernel, pid),
      stampOf,
    };
  }

  #hostGone(host: Session): void {
    this.#router.leave(host, new AirlockError("disconnected", "the host is gone"));
    this.#packs.closeAll(host);
    this.#hostReports.left(host);
  }

  status(): Status {
    const server = { version, pid: process.pid, socket: this.socketPath };
    const hosts = this.#packs.hosts.map((host) => this.#hostReports.status(host));
    return { server, hosts, packs: this.#packs.status() };
  }

  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  stop(drainMs: number = this.#parts.limits.drainMsMax): Promise<void> {
    this.#stopped ??= this.#stop(drainMs).finally(() => this.#ended.resolve());
    return this.#stopped;
  }

  async #stop(drainMs: number): Promise<void> {
    const { clock } = this.#parts;
    const stopped = new AirlockError("server_stopping", "the server was stopped");
    this.#router.stopTakingCalls();
    this.#door.refuseHosts();
    const untilMs = clock.nowMs() + drainMs;
    // Of calls over lines only the workers know: each answers when it has done what came before.
    await this.#packs.drain(drainMs);
    while (this.#router.callsWaitedFor > 0 && clock.nowMs() < untilMs) {
      await new Promise<void>((resolve) => clock.after(10, resolve));
    }
    // Who waits for an import would keep its pack.
    this.#forkServers.stop();
    await this.#packs.end(stopped);
    await this.#forkServers.close();
    this.#confiner.close();
    // What was being made is given up by now, or done in no time; what it left on disk must be gone before this process is.
    await Promise.all([this.#parts.environments.settled(), this.#parts.nursery.close()]);
    await this.#stopListening(stopped);
    this.#segments.close();
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
