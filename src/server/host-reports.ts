/**
 * What hosts say of the memory that they share: asked for by an event, answered by a call. A host that does not answer is
 * not waited for longer than a worker is; what it said before stands.
 */
import type { Clock } from "../transport/clock.ts";
import { features, type HostStatus, type MemoryReport } from "../transport/control.ts";
import type { Holdings } from "./segments.ts";
import type { Session } from "./session.ts";

/** How long hosts get to answer. */
const answerMsMax = 1_000;

export interface HostReportsOptions {
  readonly clock: Clock;
  notify(host: Session, name: string, value: unknown): void;
  ownedBy(host: Session): Holdings;
}

export class HostReports {
  readonly #options: HostReportsOptions;
  readonly #latest = new WeakMap<Session, MemoryReport | null>();
  readonly #awaited = new Map<Session, PromiseWithResolvers<void>>();

  constructor(options: HostReportsOptions) {
    this.#options = options;
  }

  /** Asks hosts for their reports; settles when all have answered, or had the time for it. */
  async look(hosts: readonly Session[]): Promise<void> {
    const asked = hosts.filter(({ hello }) => hello.features.includes(features.segments));
    const late = Promise.withResolvers<void>();
    const timer = this.#options.clock.after(answerMsMax, () => late.resolve());
    await Promise.race([late.promise, Promise.all(asked.map((host) => this.#ask(host)))]);
    timer.cancel();
  }

  #ask(host: Session): Promise<void> {
    const known = this.#awaited.get(host);
    if (known !== undefined) return known.promise;
    const answered = Promise.withResolvers<void>();
    this.#awaited.set(host, answered);
    this.#options.notify(host, "tell_memory", {});
    return answered.promise;
  }

  /** A host's answer. */
  take(host: Session, report: MemoryReport | null): void {
    this.#latest.set(host, report);
    this.left(host);
  }

  /** A host's session has ended: it is not waited for. */
  left(host: Session): void {
    this.#awaited.get(host)?.resolve();
    this.#awaited.delete(host);
  }

  status(host: Session): HostStatus {
    const { segments, bytes } = this.#options.ownedBy(host);
    const { name, pid } = host.hello;
    return { peer: host.peer, name, pid, segments, segment_bytes: bytes, memory: this.#latest.get(host) ?? null };
  }
}
