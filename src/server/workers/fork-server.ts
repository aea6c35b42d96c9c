/**
 * A process that has imported torch, and forks into workers: how it is started, asked, and ended. It has its own lifeline,
 * and its children end with it.
 *
 * Twin of `runtime/fork_server.py`, which says what goes over its descriptors.
 */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import * as v from "valibot";
import type { Clock } from "../../transport/clock.ts";
import type { Libc } from "../../transport/libc.ts";
import type { Child, ChildEnd, Ends } from "./child.ts";
import { signalName } from "./exit.ts";
import { PipeReader } from "./pipe-reader.ts";

const script = join(import.meta.dir, "..", "..", "..", "worker", "src", "comfy_airlock", "runtime", "fork_server.py");

/** How long the import of torch may take; a cold disk and a build for CUDA take ten seconds. */
const importMsMax = 30_000;

/** How long a fork may take, and to reap a child, which take milliseconds. */
const forkMsMax = 5_000;

/** How long it is waited before a request that it did not take is sent again. */
const reapAgainMs = 100;

const stopping = "the server is stopping";

const saidSchema = v.union([
  v.object({ ready: v.literal(true) }),
  v.object({ failed: v.string() }),
  v.object({ pid: v.number() }),
  v.object({ refused: v.string() }),
  v.object({ reaped: v.number() }),
  v.object({ exited: v.number(), code: v.optional(v.number()), signal: v.optional(v.number()) }),
]);

export type ForkLibc = Pick<Libc, "socketPair" | "pipe" | "sendDescriptors" | "send" | "close" | "forbidCoreFiles">;

export interface ForkServerOptions {
  readonly libc: ForkLibc;
  readonly clock: Clock;
  /** The interpreter that environments are made of, and not an environment's. */
  readonly python: string;
  /** All of its environment variables; its workers get their own. */
  readonly variables: Readonly<Record<string, string>>;
  /** Called when it has one child less. */
  readonly onChildEnded: () => void;
}

/** What a worker is forked for. */
export interface ForkRequest {
  /** The interpreter of its environment. */
  readonly python: string;
  readonly folder: string;
  /** All of its environment variables. */
  readonly variables: Readonly<Record<string, string>>;
}

/** A child, or why there is none; a worker is then to be started some other way. */
export type Forked = Child | { readonly refused: string };

export class ForkServer {
  readonly #options: ForkServerOptions;
  readonly #process: Bun.Subprocess;
  readonly #folder: string;
  readonly #lifeline: number;
  readonly #requests: number;
  readonly #said: PipeReader;
  readonly #started = Promise.withResolvers<string | undefined>();
  /** The request that is under way, of which there is one at a time: what is sent fits the socket then. */
  #turn: Promise<unknown> = Promise.resolve();
  #answer: ((forked: Forked) => void) | undefined;
  readonly #children = new Map<number, (end: ChildEnd) => void>();
  /** Who waits until a child is reaped, by its number. */
  readonly #reaping = new Map<number, () => void>();
  readonly #closed: Promise<void>;
  #load = 0;
  #isReady = false;
  #mayDoBetter = true;
  #hasEnded = false;

  /** @throws Error where it can't be started. */
  constructor(options: ForkServerOptions) {
    const { libc, clock, python, variables } = options;
    this.#options = options;
    const opened: number[] = [];
    const kept = ([near, far]: readonly [number, number]): readonly [number, number] => {
      opened.push(near, far);
      return [near, far];
    };
    this.#folder = emptyEnvironment(python);
    try {
      const lifeline = kept(libc.socketPair());
      const requests = kept(libc.socketPair("messages"));
      const said = kept(libc.pipe());
      this.#process = Bun.spawn([join(this.#folder, "bin", "python"), script], {
        cwd: "/",
        env: { ...variables },
        stdio: ["ignore", "ignore", "ignore", lifeline[1], requests[1], said[1]],
        // A session, and with it a process group, of its own: terminal signals are the server's to handle.
        detached: true,
      });
      for (const [, far] of [lifeline, requests, said]) libc.close(far);
      [this.#lifeline] = lifeline;
      [this.#requests] = requests;
      this.#said = new PipeReader(said[0]);
    } catch (error) {
      for (const descriptor of opened) libc.close(descriptor);
      this.#removeFolder();
      throw error;
    }
    // Where it has ended already, there is nothing to forbid.
    libc.forbidCoreFiles(this.#process.pid);
    const timer = clock.after(importMsMax, () => this.#fail(`torch was not imported within ${importMsMax / 1000} s`));
    void this.#started.promise.then(() => timer.cancel());
    this.#closed = this.#listen();
  }

  /** Whether it forks nothing any more. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** Whether another in its place may succeed where it has not: not where its torch can't be imported. */
  get mayDoBetter(): boolean {
    return this.#mayDoBetter;
  }

  /** Children that live, and such as are asked for. */
  get load(): number {
    return this.#children.size + this.#load;
  }

  /** Forks a worker, once torch is imported; its environment is told to nobody but it. */
  async fork({ python, folder, variables }: ForkRequest, ends: Ends): Promise<Forked> {
    this.#load += 1;
    const asked = this.#turn.then(() => this.#ask({ python, folder }, ends));
    this.#turn = asked;
    try {
      const forked = await asked;
      if ("refused" in forked) return forked;
      // It waits for this, so its hello comes after its number is known to who expects it.
      const begin = encode(variables);
      const bytes = new Uint8Array(4 + begin.byteLength);
      new DataView(bytes.buffer).setUint32(0, begin.byteLength, true);
      bytes.set(begin, 4);
      if (this.#sendAll(ends.lifeline[0], bytes)) return forked;
      void forked.ended.then(() => forked.release());
      process.kill(forked.pid, "SIGKILL");
      return { refused: `its environment variables, of ${bytes.byteLength} bytes, are too many to be passed on` };
    } finally {
      this.#load -= 1;
    }
  }

  async #ask(request: object, ends: Ends): Promise<Forked> {
    const failure = await this.#started.promise;
    if (failure !== undefined) return { refused: failure };
    const { promise, resolve } = Promise.withResolvers<Forked>();
    this.#answer = resolve;
    const timer = this.#options.clock.after(forkMsMax, () => this.#fail("the process that forks does not answer"));
    try {
      const { output, lifeline, stacks } = ends;
      const isSent = this.#send(request, output[1]) && this.#send({}, lifeline[1]) && this.#send({}, stacks[1]);
      if (isSent) return await promise;
      const refused = "the process that forks reads nothing any more";
      this.#fail(refused);
      return { refused };
    } finally {
      timer.cancel();
      this.#answer = undefined;
    }
  }

  #send(what: object, descriptor: number): boolean {
    return !this.#hasEnded && this.#options.libc.sendDescriptors(this.#requests, encode(what), descriptor) === "sent";
  }

  /** Whether the socket took all of it; a process that is gone takes nothing. */
  #sendAll(socket: number, bytes: Uint8Array): boolean {
    try {
      return this.#options.libc.send(socket, bytes) === bytes.byteLength;
    } catch {
      return false;
    }
  }

  async #listen(): Promise<void> {
    try {
      await this.#hearAll();
      if (!this.#isReady && !this.#hasEnded) this.#mayDoBetter = false;
      this.#fail("the process that forks has ended");
    } catch (error) {
      this.#fail(`the process that forks said what makes no sense: ${String(error)}`);
    }
    await this.#process.exited;
    await this.#said.close();
    this.#options.libc.close(this.#requests);
    this.#removeFolder();
  }

  #removeFolder(): void {
    rmSync(this.#folder, { recursive: true, force: true });
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
      this.#isReady = true;
      // An interpreter looks for it as it starts, and no more.
      this.#removeFolder();
      this.#started.resolve(undefined);
    } else if ("failed" in said) {
      this.#mayDoBetter = false;
      this.#fail(said.failed);
    } else if ("refused" in said) this.#answer?.(said);
    else if ("pid" in said) this.#answer?.(this.#childOf(said.pid));
    else if ("reaped" in said) this.#reaped(said.reaped);
    else this.#ended(said.exited, endOf(said));
  }

  #childOf(pid: number): Child {
    const { promise, resolve } = Promise.withResolvers<ChildEnd>();
    this.#children.set(pid, resolve);
    return { pid, ended: promise, release: () => this.#release(pid) };
  }

  async #release(pid: number): Promise<void> {
    // What ends with its parent is another's to reap.
    if (this.#hasEnded) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#reaping.set(pid, resolve);
    const timer = this.#options.clock.after(forkMsMax, () => this.#fail("the process that forks does not answer"));
    this.#reap(pid);
    await promise;
    timer.cancel();
  }

  #reap(pid: number): void {
    if (this.#hasEnded || this.#sendAll(this.#requests, encode({ reap: pid }))) return;
    // It is gone, which comes to be known soon, or has much to read.
    this.#options.clock.after(reapAgainMs, () => this.#reap(pid));
  }

  #reaped(pid: number): void {
    this.#reaping.get(pid)?.();
    this.#reaping.delete(pid);
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
    this.#answer?.({ refused: reason });
    for (const pid of [...this.#children.keys()]) this.#ended(pid, { code: null, signal: "SIGKILL" });
    for (const pid of [...this.#reaping.keys()]) this.#reaped(pid);
  }

  /** Ends it where it forks nothing yet: who waits for it is refused. */
  giveUp(): void {
    if (this.#children.size === 0) this.#fail(stopping);
  }

  /** Ends it, and what it has forked; settles when it is gone. */
  async close(): Promise<void> {
    this.#fail(stopping);
    await this.#closed;
  }
}

/**
 * An environment that has nothing, in a folder of its own, on an interpreter that has none: what is imported there is the
 * standard library, whatever is installed beside that.
 */
function emptyEnvironment(python: string): string {
  const folder = mkdtempSync(join(tmpdir(), "airlock-torch-"));
  mkdirSync(join(folder, "bin"));
  symlinkSync(python, join(folder, "bin", "python"));
  writeFileSync(join(folder, "pyvenv.cfg"), `home = ${dirname(python)}\ninclude-system-site-packages = false\n`);
  return folder;
}

function encode(what: object): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(what));
}

function endOf(said: { code?: number | undefined; signal?: number | undefined }): ChildEnd {
  const { code = null, signal } = said;
  return { code, signal: signal === undefined ? null : (signalName(signal) ?? `signal ${signal}`) };
}
