/**
 * A worker slot: one place for a worker of a pack, which has a number of its own, where its calls go.
 *
 * Invariant: at most one worker at a time; calls that arrive while there is none wait, in order, for the one that is
 * being made, and all fail together with the reason where it can't be. A worker that ends is replaced by the next call,
 * never by itself, and no call is ever sent twice. What may follow what is {@link step}'s to say.
 */
import type { Timer } from "../transport/clock.ts";
import type { CallTimeout, WorkerStatus } from "../transport/control.ts";
import { type AirlockError, toAirlockError } from "../transport/errors.ts";
import { type Frame, frameParent } from "../transport/frame.ts";
import { Checkpoint } from "./checkpoint.ts";
import type { Environment } from "./environments/environments.ts";
import type { PackManifest } from "./environments/manifest.ts";
import type { Flow } from "./flow.ts";
import { FolderWatch } from "./folder-watch.ts";
import type { Call, OpenPack, Session } from "./session.ts";
import { packHeld, startFailed, tooMuchWaits, workerDied } from "./slot-errors.ts";
import { SlotLines } from "./slot-lines.ts";
import type { SlotPack, SlotServices } from "./slot-services.ts";
import { callsOf, workerStatus } from "./slot-status.ts";
import { Tenant } from "./tenant.ts";
import { WaitingCalls } from "./waiting-calls.ts";
import { HealthWatch } from "./workers/health.ts";
import { IdleWatch, isUnused } from "./workers/idle-watch.ts";
import { hasWorker, type Life, type LifeEvent, startNotBeforeMs, step, takesCalls, unborn } from "./workers/life.ts";
import type { Worker } from "./workers/worker.ts";
import type { WorkerLog } from "./workers/worker-log.ts";
import { startWorker } from "./workers/worker-start.ts";

export class Slot implements OpenPack {
  readonly peer: number;
  readonly host: Session;
  readonly flow: Flow | undefined;
  readonly log: WorkerLog;
  readonly #pack: SlotPack;
  readonly #services: SlotServices;
  /** The lines of its workers to the host. */
  readonly lines: SlotLines;
  readonly #waiting: WaitingCalls;
  readonly #files: FolderWatch;
  readonly #checkpoint = new Checkpoint();
  #life: Life = unborn;
  #current: Tenant | undefined;
  /** Settles when the last worker is gone. */
  #lastEnded: Promise<unknown> = Promise.resolve();
  #lastNumber = 0;
  #deaths = 0;
  #lastExit: string | undefined;
  /** Until the next worker may be started. */
  #backoff: Timer | undefined;

  /** @param peer the number that the host sends its calls to. */
  constructor(peer: number, host: Session, pack: SlotPack, log: WorkerLog, services: SlotServices) {
    this.peer = peer;
    this.host = host;
    this.log = log;
    this.#pack = pack;
    this.#services = services;
    this.#waiting = new WaitingCalls(services.limits.outboxBytesMax);
    this.lines = new SlotLines({
      clock: services.clock,
      lineEndMsMax: services.limits.lineEndMsMax,
      pack: pack.name,
      tell: (name, line) => services.notify(host, name, { pack: peer, line }),
    });
    this.#files = new FolderWatch(() => services.stampOf(this.manifest.folder));
    this.flow = host.flowTo(peer, services.limits);
  }

  get name(): string {
    return this.#pack.name;
  }

  get manifest(): PackManifest {
    return this.#pack.manifest;
  }

  get callTimeout(): CallTimeout | undefined {
    return this.#pack.callTimeout;
  }

  get audience(): number {
    return this.#pack.audience;
  }

  get worker(): Session | undefined {
    return this.#current?.worker.ready;
  }

  /** The worker's process, and the manifest that it was started with, where there is one. */
  get running(): { readonly pid: number; readonly manifest: PackManifest } | undefined {
    return this.#current && { pid: this.#current.worker.pid, manifest: this.#current.manifest };
  }

  /** Calls that wait for a worker. */
  get waiting(): number {
    return this.#waiting.count;
  }

  /** Settles when the slot's last worker is gone. */
  get ended(): Promise<unknown> {
    return this.#lastEnded;
  }

  get #isClosed(): boolean {
    return this.#pack.closing.aborted;
  }

  #step(event: LifeEvent): void {
    this.#life = step(this.#life, event, this.#services.clock.nowMs(), this.#services.limits);
  }

  /** How the slot and its worker are; of calls over a line, what the worker said last. */
  status(): WorkerStatus {
    const current = this.#current;
    const session = current?.worker.session;
    const relayed = session === undefined ? 0 : this.#services.callsOf(session);
    this.#step({ type: "loaded", calls: callsOf(relayed, current?.health) });
    const ageMs = this.#services.clock.nowMs() - (current?.worker.bornAtMs ?? 0);
    return workerStatus({
      ...{ peer: this.peer, state: this.#life.state, relayed, health: current?.health },
      owned: session && this.#services.ownedBy(session),
      worker: current && { pid: current.worker.pid, ageMs, pss: current.pss ?? null },
      ...{ workers: this.#lastNumber, deaths: this.#deaths, lastExit: this.#lastExit, log: this.log.path },
    });
  }

  /** Asks the worker how it is, for the next status. */
  async look(): Promise<void> {
    await this.#current?.look(this.#services.clock, this.#services.pssOf);
  }

  /** Passes a call on to the worker, starting one where there is none. */
  submit(call: Call, frame: Frame): void {
    const session = this.worker;
    // What is called on behalf of a call that is under way is part of what a draining worker finishes.
    const isTaken = takesCalls(this.#life) || (this.#life.state === "draining" && frameParent(frame) !== undefined);
    if (session !== undefined && isTaken) return this.#services.deliver(call, frame, session);
    if (!this.#waiting.add(call, frame))
      return this.#services.fail(call, tooMuchWaits(this.name, this.#services.limits));
    this.#want();
  }

  /** Forgets a call that waits for a worker. */
  withdraw(call: Call): void {
    this.#waiting.remove(call);
  }

  /** Calls wait: starts a worker now, or as soon as one may be. */
  #want(): void {
    if (this.#life.state === "held") return void this.#lookAtHeld();
    const { clock, limits } = this.#services;
    const wasStarting = this.#life.state === "starting";
    this.#step({ type: "wanted" });
    if (this.#life.state === "starting") {
      if (!wasStarting) void this.#start();
    } else if (this.#life.state === "dead" && this.#backoff === undefined) {
      const nowMs = clock.nowMs();
      const waitMs = Math.max(0, startNotBeforeMs(this.#life, nowMs, limits) - nowMs);
      this.#backoff = clock.after(waitMs, () => {
        this.#backoff = undefined;
        if (this.#isClosed) this.#failWaiting(this.#pack.closing.reason);
        else if (this.#waiting.count > 0) this.#want();
      });
    }
  }

  /** Starts a worker after all where somebody has edited the pack since it was held; else what waits fails. */
  async #lookAtHeld(): Promise<void> {
    if (await this.#files.isEdited()) this.release();
    else if (this.#life.state === "held") this.#failWaiting(this.#held());
  }

  #held(): AirlockError {
    return packHeld(this.name, this.#lastExit ?? "unknown", this.log, this.#services.limits);
  }

  /** Has the worker end once it has answered; the next one begins anew, however often the ones before died. */
  async restart(): Promise<void> {
    this.#checkpoint.drop();
    this.release();
    await this.retire();
  }

  /** Forgets the deaths there were: the next call starts a worker again. */
  release(): void {
    this.#step({ type: "released" });
    this.#backoff?.cancel();
    this.#backoff = undefined;
    if (this.#waiting.count > 0) this.#want();
  }

  #failWaiting(reason: AirlockError): void {
    for (const [call] of this.#waiting.take()) this.#services.fail(call, reason);
  }

  /** Ends the worker because its pack is closed. */
  close(): void {
    this.#backoff?.cancel();
    this.#current?.idle?.stop();
    this.#step({ type: "stopping" });
    this.#current?.worker.stop();
    // Of a worker that is being started, its start tells those who wait for it.
    if (this.#current === undefined && !hasWorker(this.#life)) this.#failWaiting(this.#pack.closing.reason);
  }

  async #start(): Promise<void> {
    const startMs = this.#services.clock.nowMs();
    try {
      const environment = await this.#pack.prepare((progress) => {
        for (const call of this.#waiting.calls) this.#services.progress(call, progress);
      });
      this.#pack.closing.throwIfAborted();
      await this.#startWorker(environment);
      const elapsedMs = this.#services.clock.nowMs() - startMs;
      const current = this.#current;
      if (current === undefined) return;
      const { pid } = current.worker;
      this.#services.onEvent({ type: "worker_started", pack: this.name, pid, startMs: elapsedMs });
      if (this.#checkpoint.isThere) await this.#restore(current);
      this.#begin(current);
    } catch (error) {
      // Where no process was started; else its end has been taken in.
      this.#step({ type: "ended", isDeath: false });
      // Where the pack was closed meanwhile, that is the reason, not the signal that ended its worker.
      this.#failWaiting(toAirlockError(this.#isClosed ? this.#pack.closing.reason : error, "worker_start_failed"));
    }
  }

  /** The worker is ready: calls go to it from now on. */
  #begin(current: Tenant): void {
    const session = current.worker.ready;
    if (session === undefined) return;
    this.#step({ type: "admitted" });
    const { clock, limits, onEvent } = this.#services;
    const { pid } = current.worker;
    const pack = this.name;
    current.health = new HealthWatch({
      clock,
      heartbeatMs: limits.heartbeatMs,
      ask: () => this.#services.ask(session, "health"),
      onSilent: (isSilent) => onEvent({ type: isSilent ? "worker_silent" : "worker_answers", pack, pid }),
    });
    const line = this.#services.joinByLine(this.host, session, this.peer, current.number);
    if (line !== undefined) this.lines.add(current.number, line, current.worker);
    this.#deliverWaiting(session);
    this.#watchIdle(current);
  }

  /** Gives the worker the state that the one before has left, before any call. */
  async #restore({ worker }: Tenant): Promise<void> {
    const { ask, limits, onEvent } = this.#services;
    const { ready, pid } = worker;
    if (ready === undefined) return;
    const reason = await this.#checkpoint.give((state) => ask(ready, "restore", limits.workerStartMsMax, { state }));
    if (reason !== undefined) onEvent({ type: "restore_failed", pack: this.name, pid, reason });
  }

  #deliverWaiting(session: Session): void {
    for (const [call, frame] of this.#waiting.take()) this.#services.deliver(call, frame, session);
  }

  async #startWorker(environment: Environment): Promise<void> {
    const { clock, limits, expect, unexpect, spawn } = this.#services;
    await startWorker({
      clock,
      limits,
      expect: (worker) => expect(worker, this),
      unexpect,
      spawn: (worker) => spawn(this, worker, environment),
      onSpawning: (ended) => {
        this.#lastEnded = ended.catch(() => undefined);
      },
      onSpawned: (worker, ended) => this.#spawned(worker, ended),
      onDeaf: () => this.#step({ type: "stopping" }),
      failure: (worker, exit) => startFailed(this.name, worker, exit, this.log),
    });
  }

  #spawned(worker: Worker, ended: Promise<string>): void {
    this.#lastNumber += 1;
    const current = new Tenant(worker, this.#lastNumber, this.manifest);
    this.#current = current;
    this.#lastEnded = ended.then((exit) => this.#workerEnded(current, exit));
    // It was closed while the process was started.
    if (this.#isClosed) worker.stop();
  }

  #workerEnded(current: Tenant, exit: string): void {
    const { worker, number } = current;
    const { onEvent } = this.#services;
    const { session, pid } = worker;
    const expected = this.#isClosed || worker.isDismissed;
    current.end();
    this.#current = undefined;
    this.#lastExit = exit;
    if (!expected) this.#deaths += 1;
    this.#step({ type: "ended", isDeath: !expected });
    onEvent({ type: "worker_ended", pack: this.name, pid, exit, expected });
    if (this.#life.state === "held") {
      this.#files.begin();
      onEvent({ type: "pack_held", pack: this.name, reason: this.#held() });
    }
    if (session !== undefined) {
      const reason: AirlockError = this.#isClosed
        ? this.#pack.closing.reason
        : workerDied(this.name, worker, exit, this.log);
      this.lines.end(number, reason);
      this.#services.leave(session, reason);
    }
    // After the errors of its calls: what the host still held for it can go now.
    this.#services.notify(this.host, "worker_ended", { pack: this.peer, number });
    // Those who waited for a worker that never was ready are told by its start.
    if (session === undefined) return;
    if (this.#isClosed) this.#failWaiting(this.#pack.closing.reason);
    else if (this.#waiting.count > 0) this.#want();
  }

  /** The worker of this process id, if it is in this slot. */
  workerOf(pid: number): Worker | undefined {
    return this.#current?.worker.pid === pid ? this.#current.worker : undefined;
  }

  told(worker: Session, body: Uint8Array): void {
    if (this.#current?.worker.session === worker) this.#checkpoint.take(body);
  }

  endWorker(worker: Session, verdict: string): void {
    if (this.#current?.worker.session === worker) this.#current.worker.dismiss(verdict);
  }

  /** As {@link drain}, and then ends the worker. Settles when it is gone: at once where none is there yet. */
  async retire(): Promise<void> {
    const current = this.#current;
    if (current === undefined || this.#life.state === "starting") return;
    const ended = this.#lastEnded;
    await this.drain(this.#services.limits.graceMs);
    current.worker.stop();
    await ended;
  }

  /** Has the worker finish what it was given, within the time there is, and refuses it anything more. */
  async drain(withinMs: number): Promise<void> {
    const current = this.#current;
    this.#step({ type: "draining" });
    if (current !== undefined && this.#life.state === "draining") await this.#finished(current, withinMs);
  }

  async #finished(current: Tenant, withinMs: number): Promise<void> {
    const session = current.worker.ready;
    if (session === undefined) return;
    // Of calls over a line only the two on it know: the host that it makes no more, the worker that it has answered.
    await this.lines.leave(current.number, withinMs);
    await this.#services.ask(session, "idle", withinMs).catch(() => undefined);
  }

  /** Has the worker end when it has been idle for as long as its manifest says. */
  #watchIdle(current: Tenant): void {
    const { idleTimeoutMs } = current.manifest;
    if (idleTimeoutMs === undefined) return;
    current.idle = new IdleWatch({
      clock: this.#services.clock,
      idleMs: idleTimeoutMs,
      look: async () => (this.#mayBeIdle(current) ? await current.health?.look() : undefined),
      end: async () => this.#current === current && takesCalls(this.#life) && (await this.#endedUnused(current)),
    });
  }

  /** Whether it has no call that the server knows of. */
  #mayBeIdle(current: Tenant): boolean {
    const { session } = current.worker;
    return session !== undefined && this.#services.callsOf(session) === 0;
  }

  /** Ends a worker that nothing needs; lets it go on where that is no longer so when its host has left the line. */
  async #endedUnused(current: Tenant): Promise<boolean> {
    this.#step({ type: "draining" });
    const hasLeft = await this.lines.leave(current.number, this.#services.limits.questionMsMax);
    const health = hasLeft && this.#mayBeIdle(current) ? await current.health?.look() : undefined;
    if (this.#current !== current || this.#life.state !== "draining") return true;
    if (health !== undefined && isUnused(health)) {
      current.worker.stop();
      return true;
    }
    this.#step({ type: "resumed" });
    this.lines.use(current.number);
    const session = current.worker.ready;
    if (session !== undefined) this.#deliverWaiting(session);
    return false;
  }
}
