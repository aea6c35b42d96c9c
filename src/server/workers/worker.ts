/**
 * One worker from its spawn to its end: first a process without a voice, then a session, then an exit reason.
 *
 * Invariant: it ends once, after both its process and its connection have ended, so that answers which it sent before
 * it died are still delivered. Decides nothing about calls or restarts; {@link Slot} does.
 */
import { randomBytes } from "node:crypto";
import type { Clock } from "../../transport/clock.ts";
import { AirlockError } from "../../transport/errors.ts";
import type { Session } from "../session.ts";
import { describeExit } from "./exit.ts";
import type { Exceeded } from "./limits/mechanism.ts";
import type { WorkerProcess } from "./worker-process.ts";

/** How long a worker may take to exit after it closed its connection, before it is made to. */
const exitMsMax = 3_000;

/** How long it may take to exit once it was told to. */
const stopMsMax = 1_000;

/** How long its connection may be open after it has exited: all that it sent is there to be read by then. */
const lastWordsMsMax = 250;

export class Worker {
  /** Its proof, in the hello, that it is the process that was spawned. Good for one use. */
  readonly token = randomBytes(24).toString("base64url");
  /** When it was made, on the server's clock. */
  readonly bornAtMs: number;
  readonly #clock: Clock;
  readonly #onDeaf: () => void;
  #process: WorkerProcess | undefined;
  #session: Session | undefined;
  readonly #connectionClosed = Promise.withResolvers<void>();
  #listening = false;
  readonly #admitted = Promise.withResolvers<Session>();
  #verdict: string | undefined;
  #isDismissed = false;
  #exceeded: Exceeded | undefined;

  /** @param onDeaf called once it takes no more calls, though it has not ended. */
  constructor(clock: Clock, onDeaf: () => void = () => undefined) {
    this.#clock = clock;
    this.bornAtMs = clock.nowMs();
    this.#onDeaf = onDeaf;
    // Whoever waits for the admission also waits for the end, which comes first where it never is admitted.
    this.#admitted.promise.catch(() => undefined);
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  get session(): Session | undefined {
    return this.#session;
  }

  /** The limit that has ended it, where it was one. */
  get exceeded(): Exceeded | undefined {
    return this.#exceeded;
  }

  /** The Python stack that it left when it crashed, if it did. */
  get crashStack(): string | undefined {
    return this.#process?.crashStack;
  }

  /** The session that takes calls now, if there is one. */
  get ready(): Session | undefined {
    return this.#listening ? this.#session : undefined;
  }

  /** Whether its end was asked for, by us or its host, and says nothing against it. */
  get isDismissed(): boolean {
    return this.#isDismissed;
  }

  /** Settles with the session once the worker has said hello. */
  get admitted(): Promise<Session> {
    return this.#admitted.promise;
  }

  /**
   * Takes charge of the spawned process.
   *
   * @returns a promise of the exit reason, settled when process and connection are gone.
   */
  async supervise(process: WorkerProcess): Promise<string> {
    this.#process = process;
    // It may have been given up before there was a process.
    if (this.#verdict !== undefined || this.#isDismissed) process.kill();
    const exit = await process.exited;
    if (this.#session !== undefined) {
      // A forked child may hold the connection open for ever.
      const timer = this.#clock.after(lastWordsMsMax, () => this.#session?.link.abort());
      await this.#connectionClosed.promise;
      timer.cancel();
    }
    if (this.#verdict === undefined) this.#exceeded = exit.exceeded;
    return this.#verdict ?? describeExit(exit);
  }

  /** Prints the Python stacks of its threads. */
  async dumpStacks(): Promise<string> {
    if (this.#process === undefined) throw new AirlockError("bad_request", "the worker is not started yet");
    return await this.#process.dumpStacks();
  }

  /** The worker said hello. */
  admit(session: Session): void {
    this.#session = session;
    this.#listening = true;
    this.#admitted.resolve(session);
  }

  /** The worker's connection ended; `cause` is missing where the worker closed it. */
  connectionClosed(cause: AirlockError | undefined): void {
    this.#stopListening();
    this.#connectionClosed.resolve();
    // A connection that merely broke says nothing that the exit of the process doesn't say better.
    const brokeRules = cause !== undefined && cause.code !== "disconnected";
    if (brokeRules) this.kill(`ended by the server: ${cause.message}`);
    else this.#clock.after(exitMsMax, () => this.kill());
  }

  #stopListening(): void {
    if (!this.#listening) return;
    this.#listening = false;
    this.#onDeaf();
  }

  /** Asks the worker to end by closing its connection; kills it where it doesn't within `graceMs`. */
  stop(graceMs: number = stopMsMax): void {
    this.#isDismissed = true;
    this.#stopListening();
    this.#session?.link.end();
    this.#clock.after(this.#session === undefined ? 0 : graceMs, () => this.kill());
  }

  /** Ends the worker's process group at once; `verdict` is the exit reason to report instead of the signal. */
  kill(verdict?: string): void {
    this.#verdict ??= verdict;
    this.#process?.kill();
  }

  /** As {@link kill}, where somebody asked for that who may: it is no death that speaks against the pack. */
  dismiss(verdict: string): void {
    this.#isDismissed = true;
    this.kill(verdict);
  }
}
