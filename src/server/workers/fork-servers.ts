/**
 * The processes that have torch and fork into workers: one for each interpreter, torch, and variables that it looks at.
 *
 * The first worker that can be forked has one made, and waits for it: torch is imported once either way. One that has had
 * no child for a while is ended.
 */
import { realpathSync } from "node:fs";
import type { Clock, Timer } from "../../transport/clock.ts";
import { identityOf } from "../environments/interpreter-memo.ts";
import type { Ends } from "./child.ts";
import { type Forked, type ForkLibc, type ForkRequest, ForkServer } from "./fork-server.ts";
import { torchVariables } from "./variables.ts";

/** How long one is kept that has no child: its pages are nobody else's then. */
const idleMsMax = 300_000;

interface Kept {
  readonly server: ForkServer;
  timer: Timer | undefined;
}

export interface ForkServersOptions {
  readonly libc: ForkLibc;
  readonly clock: Clock;
  /** The variables that all workers have: what is forked from has these, and such of a pack's as torch looks at. */
  readonly variables: Readonly<Record<string, string>>;
}

export class ForkServers {
  readonly #options: ForkServersOptions;
  readonly #kept = new Map<string, Kept>();
  #isClosed = false;

  constructor(options: ForkServersOptions) {
    this.#options = options;
  }

  /** Forks a worker, which shares torch. */
  async fork(request: ForkRequest, ends: Ends): Promise<Forked> {
    try {
      const server = await this.#serverFor(request.python, request.variables);
      return await server.fork(request, ends);
    } catch (error) {
      return { refused: String(error) };
    }
  }

  /**
   * Makes one ahead of the first worker that needs it.
   *
   * @throws Error where it can't be started.
   */
  async warm(python: string, variables: ForkRequest["variables"]): Promise<void> {
    await this.#serverFor(python, variables);
  }

  async #serverFor(python: string, variables: ForkRequest["variables"]): Promise<ForkServer> {
    const looked = torchVariables(variables);
    const key = JSON.stringify([await identityOf(python, variables["PATH"]), looked]);
    if (this.#isClosed) throw new Error("the server is stopping");
    const known = this.#kept.get(key)?.server;
    if (known !== undefined && !(known.hasEnded && known.mayDoBetter)) return known;
    const { libc, clock } = this.#options;
    const onChildEnded = (): void => this.#watch(key, kept);
    const all = { ...this.#options.variables, ...looked };
    const server = new ForkServer({ libc, clock, python: realpathSync(python), variables: all, onChildEnded });
    const kept: Kept = { server, timer: undefined };
    this.#kept.set(key, kept);
    this.#watch(key, kept);
    return server;
  }

  /** Has it ended if it has no child for long. */
  #watch(key: string, kept: Kept): void {
    kept.timer?.cancel();
    kept.timer = this.#options.clock.after(idleMsMax, () => {
      if (kept.server.load > 0 || this.#kept.get(key) !== kept) return;
      this.#kept.delete(key);
      void kept.server.close();
    });
  }

  /** Makes no more, and has nobody wait for what is not there yet. */
  stop(): void {
    this.#isClosed = true;
    for (const { server } of this.#kept.values()) server.giveUp();
  }

  /** Ends all; settles when they are gone. */
  async close(): Promise<void> {
    this.stop();
    const kept = [...this.#kept.values()];
    for (const { timer } of kept) timer?.cancel();
    await Promise.all(kept.map(({ server }) => server.close()));
  }
}
