/**
 * A process that has imported torch, and forks into workers: how it is started, asked, and ended. It has its own lifeline,
 * and its children end with it.
 *
 * Twin of `runtime/fork_server.py`, which says what goes over its descriptors.
 */
import { constants } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import type { Clock } from "../../transport/clock.ts";
import type { Libc } from "../../transport/libc.ts";
import type { Child, ChildEnd, Ends } from "./child.ts";
import { PipeReader } from "./pipe-reader.ts";

const script = join(import.meta.dir, "..", "..", "..", "worker", "src", "comfy_airlock", "runtime", "fork_server.py");

/** How long the import of torch may take: a cold disk and a build for CUDA included. */
const importMsMax = 45_000;

/** How long a fork may take, which takes milliseconds. */
const forkMsMax = 5_000;

const saidSchema = v.union([
  v.object({ ready: v.literal(true) }),
  v.object({ failed: v.string() }),
  v.object({ id: v.number(), pid: v.number() }),
  v.object({ id: v.number(), refused: v.string() }),
  v.object({ exited: v.number(), code: v.optional(v.number()), signal: v.optional(v.number()) }),
]);

export type ForkLibc = Pick<Libc, "socketPair" | "pipe" | "sendDescriptor" | "send" | "close" | "forbidCoreFiles">;

export interface ForkServerOptions {
  readonly libc: ForkLibc;
  readonly clock: Clock;
  /** The interpreter that environments are made of, and not an environment's. */
  readonly python: string;
  /** All of its environment variables, which are its workers' but for what each is started with. */
  readonly variables: Readonly<Record<string, string>>;
  /** Called when it has one child less. */
  readonly onChildEnded: () => void;
}

/** What a worker is forked for. */
export interface ForkRequest {
  /** The interpreter of its environment. */
  readonly python: string;
  readonly folder: string;
  readonly variables: Readonly<Record<string, string>>;
}

/** A child, or why there is none; a worker is then to be started some other way. */
export type Forked = Child | { readonly refused: string };

export class ForkServer {
  readonly #options: ForkServerOptions;
  readonly #process: Bun.Subprocess;
  readonly #lifeline: number;
  readonly #requests: number;
  readonly #said: PipeReader;
  readonly #started = Promise.withResolvers<string | undefined>();
  readonly #asked = new Map<number, (forked: Forked) => void>();
  readonly #children = new Map<number, (end: ChildEnd) => void>();
  readonly #closed: Promise<void>;
  #lastId = 0;
  #wasReady = false;
  #hasEnded = false;

  /** @throws Error where it can't be started. */
  constructor(options: ForkServerOptions) {
    const { libc, clock, python, variables } = options;
    this.#options = options;
    const lifeline = libc.socketPair();
    const requests = libc.socketPair("messages");
    const said = libc.pipe();
    [this.#lifeline] = lifeline;
    [this.#requests] = requests;
    this.#said = new PipeReader(said[0]);
    try {
      this.#process = Bun.spawn([python, "-S", script], {
        cwd: "/",
        env: { ...variables },
        stdio: ["ignore", "ignore", "ignore", lifeline[1], requests[1], said[1]],
        // A session, and with it a process group, of its own: terminal signals are the server's to handle.
        detached: true,
      });
    } catch (error) {
      for (const near of [lifeline[0], requests[0]]) libc.close(near);
      void this.#said.close();
      throw error;
    } finally {
      for (const far of [lifeline[1], requests[1], said[1]]) libc.close(far);
    }
    libc.forbidCoreFiles(this.#process.pid);
    const timer = clock.after(importMsMax, () => this.#fail(`torch was not imported within ${importMsMax / 1000} s`));
    void this.#started.promise.then(() => timer.cancel());
    this.#closed = this.#listen();
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** Whether it forks nothing any more. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** Whether it has ever imported torch. */
  get wasReady(): boolean {
    return this.#wasReady;
  }

  /** Children that live, and such as are being forked. */
  get load(): number {
    return this.#children.size + this.#asked.size;
  }

  /** Forks a worker, once torch is imported. */
  async fork(request: ForkRequest, ends: Ends): Promise<Forked> {
    const id = ++this.#lastId;
    const answer = Promise.withResolvers<Forked>();
    this.#asked.set(id, answer.resolve);
    try {
      const failure = await this.#started.promise;
      if (failure !== undefined) return { refused: failure };
      if (!this.#send({ id, ...request }, ends)) return { refused: "the process that forks takes no more requests" };
      const timer = this.#options.clock.after(forkMsMax, () => this.#fail("the process that forks does not answer"));
      try {
        return await answer.promise;
      } finally {
        timer.cancel();
      }
    } finally {
      this.#asked.delete(id);
    }
  }

  /** False where the first message was not sent, and so none; a later one that is not ends it. */
  #send(request: object, { output, lifeline, stacks }: Ends): boolean {
    const { libc } = this.#options;
    if (this.#hasEnded) return false;
    const encode = (what: object): Uint8Array => new TextEncoder().encode(JSON.stringify(what));
    const send = (what: object, descriptor: number): boolean =>
      libc.sendDescriptor(this.#requests, encode(what), descriptor) === "sent";
    if (!send(request, output[1])) return false;
    if (!send({}, lifeline[1]) || !send({}, stacks[1])) this.#fail("the process that forks does not read");
    return true;
  }

  async #listen(): Promise<void> {
    try {
      await this.#hearAll();
      this.#fail("the process that forks has ended");
    } catch (error) {
      this.#fail(`the process that forks said what makes no sense: ${String(error)}`);
    }
    await this.#process.exited;
    await this.#said.close();
    this.#options.libc.close(this.#requests);
  }

  async #hearAll(): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for (let chunk = await this.#said.read(); chunk !== undefined; chunk = await this.#said.read()) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.#hear(v.parse(saidSchema, JSON.parse(line)));
    }
  }

  #hear(said: v.InferOutput<typeof saidSchema>): void {
    if ("ready" in said) {
      this.#wasReady = true;
      this.#started.resolve(undefined);
    } else if ("failed" in said) this.#fail(said.failed);
    else if ("refused" in said) this.#asked.get(said.id)?.({ refused: said.refused });
    else if ("pid" in said) this.#asked.get(said.id)?.(this.#childOf(said.pid));
    else this.#ended(said.exited, { code: said.code ?? null, signal: signalName(said.signal) });
  }

  #childOf(pid: number): Child {
    const { promise, resolve } = Promise.withResolvers<ChildEnd>();
    this.#children.set(pid, resolve);
    const release = (): void => {
      if (this.#hasEnded) return;
      this.#options.libc.send(this.#requests, new TextEncoder().encode(JSON.stringify({ reap: pid })));
    };
    return { pid, ended: promise, release };
  }

  #ended(pid: number, end: ChildEnd): void {
    const resolve = this.#children.get(pid);
    this.#children.delete(pid);
    resolve?.(end);
    this.#options.onChildEnded();
  }

  /** Ends it, with its children. */
  #fail(reason: string): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#started.resolve(reason);
    // The kernel kills its group when this closes, and each child when their parent is gone.
    this.#options.libc.close(this.#lifeline);
    this.#process.kill("SIGKILL");
    for (const answer of this.#asked.values()) answer({ refused: reason });
    for (const pid of [...this.#children.keys()]) this.#ended(pid, { code: null, signal: "SIGKILL" });
  }

  /** Ends it, and what it has forked; settles when it is gone. */
  async close(): Promise<void> {
    this.#fail("the server is stopping");
    await this.#closed;
  }
}

function signalName(number: number | undefined): string | null {
  if (number === undefined) return null;
  return Object.entries(constants.signals).find(([, each]) => each === number)?.[0] ?? `signal ${number}`;
}
