/**
 * A pack that a host has opened: where its calls go, and the owner of its worker.
 *
 * Invariant: at most one worker at a time; calls that arrive while there is none wait, in order, for the one that is
 * being made, and all fail together with the reason where it can't be. A worker that ends is replaced by the next call,
 * never by itself, and no call is ever sent twice.
 */
import type { Clock } from "../transport/clock.ts";
import type { PackStatus, Progress } from "../transport/control.ts";
import { AirlockError, toAirlockError } from "../transport/errors.ts";
import type { Frame } from "../transport/frame.ts";
import type { Limits } from "../transport/limits.ts";
import type { Environment } from "./environments/environments.ts";
import type { PackManifest } from "./environments/manifest.ts";
import type { OnServerEvent } from "./events.ts";
import type { Flow } from "./flow.ts";
import type { Line } from "./line.ts";
import type { Call, OpenPack, Session } from "./session.ts";
import { WaitingCalls } from "./waiting-calls.ts";
import { Worker } from "./workers/worker.ts";
import type { WorkerLog } from "./workers/worker-log.ts";
import type { WorkerProcess } from "./workers/worker-process.ts";

/** What a pack needs of the server around it. */
export interface PackServices {
  readonly clock: Clock;
  readonly limits: Limits;
  readonly onEvent: OnServerEvent;
  /** Finds or makes the pack's environment. */
  prepareEnvironment(pack: Pack, onProgress: (progress: Progress) => void, signal: AbortSignal): Promise<Environment>;
  /** Starts a process that will say hello with the worker's token. */
  spawn(pack: Pack, worker: Worker, environment: Environment): WorkerProcess;
  /** Expects a hello with the worker's token, or no longer. */
  expect(worker: Worker, pack: Pack): void;
  unexpect(worker: Worker): void;
  deliver(call: Call, frame: Frame, worker: Session): void;
  fail(call: Call, error: AirlockError): void;
  progress(call: Call, progress: Progress): void;
  /** Tells a host what it did not ask for. */
  notify(host: Session, name: string, value: unknown): void;
  /** A worker's session is over; its calls fail with `cause`. */
  leave(session: Session, cause: AirlockError): void;
  /** Makes a line between the two, where both can take one. */
  joinByLine(host: Session, worker: Session, pack: number, number: number): Line | undefined;
}

/** A worker's line to the host, and why it ended, once it has. */
interface PackLine {
  readonly line: Line;
  readonly ended: PromiseWithResolvers<AirlockError>;
}

/** How many lines that ended are remembered for a host that asks why: it does so at once. */
const linesRemembered = 8;

export class Pack implements OpenPack {
  /** The number that the host sends this pack's calls to. */
  readonly peer: number;
  readonly host: Session;
  readonly flow: Flow | undefined;
  readonly log: WorkerLog;
  readonly #services: PackServices;
  readonly #closing = new AbortController();
  #manifest: PackManifest;
  #worker: Worker | undefined;
  /** The manifest that the worker was started with. */
  #workerManifest: PackManifest | undefined;
  /** Settles when the last worker is gone. */
  #lastEnded: Promise<unknown> = Promise.resolve();
  #starting = false;
  /** How many workers there were: the number of the last one, and of its line. */
  #lastNumber = 0;
  readonly #lines = new Map<number, PackLine>();
  readonly #waiting: WaitingCalls;

  constructor(peer: number, host: Session, manifest: PackManifest, log: WorkerLog, services: PackServices) {
    this.peer = peer;
    this.host = host;
    this.#manifest = manifest;
    this.log = log;
    this.#services = services;
    this.#waiting = new WaitingCalls(services.limits.outboxBytesMax);
    this.flow = host.flowTo(peer, services.limits);
  }

  get name(): string {
    return this.#manifest.name;
  }

  get worker(): Session | undefined {
    return this.#worker?.ready;
  }

  /** The manifest as it was when the pack was last opened: the next worker's. */
  get manifest(): PackManifest {
    return this.#manifest;
  }

  /** What the host should know of the manifest, a sentence each. */
  get warnings(): readonly string[] {
    const running = this.#worker === undefined ? undefined : this.#workerManifest;
    if (running === undefined || Bun.deepEquals(running, this.#manifest)) return this.#manifest.warnings;
    const changed = `${this.#manifest.file} was changed after the running worker (pid ${this.#worker?.pid}) was started`;
    return [
      ...this.#manifest.warnings,
      `${changed}; close the pack and open it again to have a worker that follows it`,
    ];
  }

  /** Takes the manifest as it is now; a worker that is running goes on as it was started. */
  reopen(manifest: PackManifest): void {
    this.#manifest = manifest;
  }

  /** Settles when the pack's last worker is gone. */
  get ended(): Promise<unknown> {
    return this.#lastEnded;
  }

  get #closed(): boolean {
    return this.#closing.signal.aborted;
  }

  status(): PackStatus {
    const { name, folder } = this.manifest;
    const session = this.#worker?.ready;
    const pid = this.#worker?.pid ?? 0;
    const calls = (session?.callsOwed ?? 0) + this.#waiting.count;
    const state = session === undefined ? "starting" : "ready";
    return {
      pack: this.peer,
      name,
      folder,
      host: { name: this.host.hello.name, pid: this.host.hello.pid },
      log: this.log.path,
      worker: this.#worker === undefined ? null : { pid, state, calls },
    };
  }

  /** Passes a call on to the worker, starting one where there is none. */
  submit(call: Call, frame: Frame): void {
    const session = this.#worker?.ready;
    if (session !== undefined && !this.#starting) return this.#services.deliver(call, frame, session);
    if (!this.#waiting.add(call, frame)) return this.#services.fail(call, this.#tooMuchWaits());
    if (!this.#starting) void this.#start();
  }

  #tooMuchWaits(): AirlockError {
    const message = `pack ${this.name}: too much waits for its worker to start; ${this.#services.limits.outboxBytesMax} bytes may`;
    return new AirlockError("limit_exceeded", message, { pack: this.name, hint: "prepare the pack before calling it" });
  }

  /** Forgets a call that waits for a worker. */
  withdraw(call: Call): void {
    this.#waiting.remove(call);
  }

  /** Finds or makes the pack's environment, telling `onProgress` and all calls that wait for it. */
  prepare(onProgress: (progress: Progress) => void): Promise<Environment> {
    return this.#services.prepareEnvironment(this, onProgress, this.#closing.signal);
  }

  /** Ends the pack's worker, and with it the calls under way, which fail with `reason`. */
  close(reason = new AirlockError("cancelled", `the pack ${this.name} was closed`)): void {
    this.#closing.abort(reason);
    this.#worker?.stop();
  }

  async #start(): Promise<void> {
    this.#starting = true;
    const startMs = this.#services.clock.nowMs();
    try {
      const environment = await this.prepare((progress) => {
        for (const call of this.#waiting.calls) this.#services.progress(call, progress);
      });
      await this.#lastEnded;
      this.#closing.signal.throwIfAborted();
      const session = await this.#startWorker(environment);
      const elapsedMs = this.#services.clock.nowMs() - startMs;
      this.#services.onEvent({
        type: "worker_started",
        pack: this.name,
        pid: session.hello.pid,
        startMs: elapsedMs,
      });
      this.#join(session);
      for (const [call, frame] of this.#waiting.take()) this.#services.deliver(call, frame, session);
    } catch (error) {
      // Where the pack was closed meanwhile, that is the reason, not the signal that ended its worker.
      const reason = toAirlockError(this.#closed ? this.#closing.signal.reason : error, "worker_start_failed");
      for (const [call] of this.#waiting.take()) this.#services.fail(call, reason);
    } finally {
      this.#starting = false;
    }
  }

  /** Has host and worker talk directly from now on, where they can. Calls on the relay go on there. */
  #join(session: Session): void {
    const line = this.#services.joinByLine(this.host, session, this.peer, this.#lastNumber);
    if (line === undefined) return;
    this.#lines.set(this.#lastNumber, { line, ended: Promise.withResolvers() });
    const [oldest] = this.#lines.keys();
    if (oldest !== undefined && this.#lines.size > linesRemembered) this.#lines.delete(oldest);
  }

  /** The worker whose calls the server may not see, because they come over a line. */
  get workerOnLine(): Session | undefined {
    return this.#lines.has(this.#lastNumber) ? this.worker : undefined;
  }

  /** A worker that lives on without the line that it had, by its own doing or a breach of the protocol, is ended. */
  #endWithItsLine(): void {
    const worker = this.#worker;
    const verdict = "ended by the server: its line to the host had ended, and it had not";
    this.#services.clock.after(this.#services.limits.lineEndMsMax, () => worker?.kill(verdict));
  }

  /** Why the worker on this line ended; settles when it has, which is seen to. */
  async ending(number: number): Promise<AirlockError> {
    const forgotten = new AirlockError("worker_died", `pack ${this.name}: line ${number} has ended`);
    const line = this.#lines.get(number);
    if (line !== undefined && number === this.#lastNumber) this.#endWithItsLine();
    return (await line?.ended.promise) ?? forgotten;
  }

  /** Ends the worker on this line, whose host says that it does not answer. It may have ended already. */
  endOverdue(number: number): void {
    const verdict = "ended by its host: it had not answered a call long after that was cancelled or overdue";
    if (number === this.#lastNumber && this.#lines.has(number)) this.#worker?.kill(verdict);
  }

  /** The worker of this process id, if the pack has it. */
  workerOf(pid: number): Worker | undefined {
    return this.#worker?.pid === pid ? this.#worker : undefined;
  }

  endWorker(worker: Session, verdict: string): void {
    if (this.#worker?.session === worker) this.#worker.kill(verdict);
  }

  async #startWorker(environment: Environment): Promise<Session> {
    const { clock, limits } = this.#services;
    const worker = new Worker(clock);
    this.#services.expect(worker, this);
    const timer = clock.after(limits.workerStartMsMax, () => {
      worker.kill(`no hello within ${limits.workerStartMsMax / 1000} s`);
    });
    try {
      const ended = worker.supervise(this.#services.spawn(this, worker, environment));
      this.#worker = worker;
      this.#lastNumber += 1;
      const number = this.#lastNumber;
      this.#workerManifest = this.#manifest;
      this.#lastEnded = ended.then((exit) => this.#workerEnded(worker, number, exit));
      const failed = ended.then((exit) => Promise.reject(this.#startFailed(worker, exit)));
      // The race below may be over before the worker ends; that later rejection is nobody's surprise.
      failed.catch(() => undefined);
      return await Promise.race([worker.admitted, failed]);
    } finally {
      timer.cancel();
      this.#services.unexpect(worker);
    }
  }

  #startFailed(worker: Worker, exit: string): AirlockError {
    const message = `pack ${this.name}: its worker (pid ${worker.pid}) ended before it was ready: ${exit}`;
    return new AirlockError("worker_start_failed", message, { pack: this.name, exit, ...this.#lastWords(worker) });
  }

  #workerEnded(worker: Worker, number: number, exit: string): void {
    if (this.#worker === worker) this.#worker = undefined;
    const expected = this.#closed;
    this.#services.onEvent({ type: "worker_ended", pack: this.name, pid: worker.pid, exit, expected });
    if (worker.session !== undefined) {
      const reason: AirlockError = expected ? this.#closing.signal.reason : this.#died(worker, exit);
      const last = this.#lines.get(number);
      last?.line.end();
      last?.ended.resolve(reason);
      this.#services.leave(worker.session, reason);
    }
    // After the errors of its calls: what the host still held for it can go now.
    this.#services.notify(this.host, "worker_ended", { pack: this.peer, number });
  }

  #died(worker: Worker, exit: string): AirlockError {
    const pack = this.name;
    const message = `pack ${pack}: its worker (pid ${worker.pid}) ended during the call: ${exit}`;
    const hint = `the next call starts a fresh worker; its log is ${this.log.path}`;
    return new AirlockError("worker_died", message, { pack, exit, ...this.#lastWords(worker), hint });
  }

  #lastWords(worker: Worker): { log: string; stack?: string } {
    const { crashStack } = worker;
    return { log: this.log.tail(), ...(crashStack !== undefined && { stack: crashStack }) };
  }
}
