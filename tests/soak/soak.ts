/**
 * The soak of tensors: hosts and packs pass arrays to one another while processes are killed and stopped at random.
 *
 * Invariant: it settles well only where no byte was wrong, nothing failed but what a killed worker fails, every survivor
 * went on, and nothing is left. What it kills and when follows from its seed; how far the others are by then does not.
 */
import { cpSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { randomFrom } from "../../bench/random.ts";
import { type Server, serve } from "../../src/index.ts";
import { until } from "../support/until.ts";

export interface SoakOptions {
  readonly seed: number;
  /** Transfers to be made, at least. */
  readonly transfers: number;
  readonly hosts: number;
  /** Threads of each host that make transfers. */
  readonly threads: number;
  /** How many transfers are made, in the mean, from one kill of a worker, and of a host, to the next. */
  readonly perWorkerKill: number;
  readonly perHostKill: number;
  /** Whether arrays lie in memory of torch's, in hosts and workers. */
  readonly torch?: boolean;
  /** Told how far it is, now and then. */
  readonly tell: (line: string) => void;
}

/** What was done. */
export interface SoakFigures {
  transfers: number;
  bytes: number;
  /** Transfers that ended otherwise, by the code of their error. */
  readonly interrupted: Map<string, number>;
  workersKilled: number;
  /** Of those, by themselves or their host, as soon as they had answered. */
  killedAsAnswered: number;
  hostsKilled: number;
  paused: number;
  segmentsMost: number;
  seconds: number;
}

const root = join(import.meta.dir, "..", "..");
const tensors = join(root, "tests", "packs", "tensors");
const pythonOf = (environment: string): string => join(root, ".venvs", environment, "bin", "python");
/** A Python with torch, if there is one. */
export const torchPython = pythonOf("torch");
const environments = join(root, ".airlock", "test-environments");

/** Back-off and holding have tests of their own. */
const limits = { backoffMsMin: 1, backoffMsMax: 1, deathsMax: 1_000_000, drainMsMax: 200 };

/** Runs it; rejects with the first thing that was wrong. */
export async function soak(options: SoakOptions): Promise<SoakFigures> {
  const before = descriptors().length;
  const folder = mkdtempSync(join(tmpdir(), "soak-"));
  const mark = `AIRSOAK_${process.pid}_${folder.slice(-6)}`;
  try {
    const run = new Soak(options, folder, mark);
    try {
      return await run.run();
    } finally {
      await run.end();
      await until(
        () => marked(mark).length === 0,
        () => `no process is left (${marked(mark).join(", ")})`,
      );
      await until(
        () => descriptors().length <= before,
        () => `no descriptor is left (${before} before, now ${descriptors().join(", ")})`,
      );
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

type Child = Subprocess<"pipe", "pipe", "pipe">;

class Soak {
  readonly #options: SoakOptions;
  readonly #folder: string;
  readonly #mark: string;
  readonly #random: () => number;
  readonly #hosts = new Set<Host>();
  readonly #figures: SoakFigures = {
    transfers: 0,
    bytes: 0,
    interrupted: new Map(),
    workersKilled: 0,
    killedAsAnswered: 0,
    hostsKilled: 0,
    paused: 0,
    segmentsMost: 0,
    seconds: 0,
  };
  readonly #failed = Promise.withResolvers<never>();
  readonly #packs: readonly string[];
  #server: Server | undefined;
  #hostsStarted = 0;
  #hasFailed = false;

  constructor(options: SoakOptions, folder: string, mark: string) {
    this.#options = options;
    this.#folder = folder;
    this.#mark = mark;
    this.#random = randomFrom(options.seed);
    this.#failed.promise.catch(() => {
      this.#hasFailed = true;
    });
    this.#packs = ["first", "second", "private"].map((name) => this.#makePack(name));
  }

  #makePack(name: string): string {
    const pack = join(this.#folder, name);
    cpSync(tensors, pack, { recursive: true });
    const manifest = join(pack, "pyproject.toml");
    const text = readFileSync(manifest, "utf8").replace('name = "tensors"', `name = "${name}"`);
    const more = [...(name === "private" ? ["private_memory"] : []), ...(this.#options.torch ? ["share_torch"] : [])];
    writeFileSync(manifest, `${text}${more.map((key) => `${key} = true\n`).join("")}`);
    return pack;
  }

  /** Variables of hosts and workers. */
  #variables(): Record<string, string> {
    return { [this.#mark]: "1", ...(this.#options.torch && { SOAK_TORCH: "1" }) };
  }

  async run(): Promise<SoakFigures> {
    this.#server = await serve({
      socket: join(this.#folder, "server.sock"),
      environments,
      logs: join(this.#folder, "logs"),
      limits,
      libraries: join(root, ".airlock", "test-libraries"),
      workerVariables: this.#variables(),
    });
    const begun = performance.now();
    for (let count = 0; count < this.#options.hosts; count++) this.#startHost();
    const work = [this.#killWorkers(), this.#killHosts(), this.#pause(), this.#watch(begun)];
    // Each ends by itself once there is enough, or something has failed.
    await Promise.all(work);
    if (this.#hasFailed) await this.#failed.promise;
    await Promise.race([this.#finish(), this.#failed.promise]);
    this.#figures.seconds = (performance.now() - begun) / 1000;
    return this.#figures;
  }

  get #isOver(): boolean {
    return this.#hasFailed || this.#figures.transfers >= this.#options.transfers;
  }

  #startHost(): void {
    this.#hostsStarted += 1;
    const seed = this.#options.seed * 10_000 + this.#hostsStarted;
    const python = this.#options.torch ? torchPython : pythonOf("test");
    const command = [python, join(import.meta.dir, "host.py"), String(seed), String(this.#options.threads), tensors];
    const child = Bun.spawn([...command, ...this.#packs], {
      env: {
        ...(process.env as Record<string, string>),
        ...{ PYTHONPATH: join(root, "worker", "src"), PYTHONDONTWRITEBYTECODE: "1" },
        ...{ AIRLOCK_SOCKET: join(this.#folder, "server.sock"), ...this.#variables() },
      },
      stdio: ["pipe", "pipe", "pipe"],
    });
    const host = new Host(child, this.#figures);
    this.#hosts.add(host);
    host.over.catch((error) => this.#failed.reject(error));
  }

  /**
   * Moments between which so many transfers are made in the mean, until there is enough: by transfers rather than by time,
   * as a machine that has other work would otherwise do nothing but start processes.
   */
  async *#moments(transfers: number): AsyncGenerator<undefined> {
    while (!this.#isOver) {
      const enough = this.#figures.transfers + 2 * transfers * this.#random();
      while (!this.#isOver && this.#figures.transfers < enough) await Bun.sleep(5);
      // At any point of those that come next.
      await Bun.sleep(100 * this.#random());
      if (!this.#isOver) yield;
    }
  }

  #workers(): number[] {
    const packs = this.#server?.status().packs ?? [];
    return packs.flatMap(({ workers }) => workers.flatMap(({ pid }) => (pid === 0 ? [] : [pid])));
  }

  #oneOf<T>(items: readonly T[]): T | undefined {
    return items[Math.floor(this.#random() * items.length)];
  }

  async #killWorkers(): Promise<void> {
    for await (const _ of this.#moments(this.#options.perWorkerKill)) {
      const pid = this.#oneOf(this.#workers());
      if (pid === undefined) continue;
      this.#figures.workersKilled += 1;
      signal(pid, "SIGKILL");
    }
  }

  async #killHosts(): Promise<void> {
    for await (const _ of this.#moments(this.#options.perHostKill)) {
      const host = this.#oneOf([...this.#hosts]);
      if (host === undefined) continue;
      this.#figures.hostsKilled += 1;
      this.#hosts.delete(host);
      host.kill();
      this.#startHost();
    }
  }

  /** Stops workers and hosts for a while; some are killed then. */
  async #pause(): Promise<void> {
    for await (const _ of this.#moments(this.#options.perWorkerKill)) {
      const host = this.#oneOf([...this.#hosts]);
      const pid = this.#random() < 0.25 ? host?.pid : this.#oneOf(this.#workers());
      if (pid === undefined) continue;
      this.#figures.paused += 1;
      signal(pid, "SIGSTOP");
      await Bun.sleep(300 * this.#random());
      signal(pid, "SIGCONT");
    }
  }

  async #watch(begun: number): Promise<void> {
    let told = 0;
    while (!this.#isOver) {
      const figures = this.#figures;
      const open = segmentsOpen();
      figures.segmentsMost = Math.max(figures.segmentsMost, open);
      figures.seconds = (performance.now() - begun) / 1000;
      if (figures.seconds >= told + 5) {
        told = figures.seconds;
        this.#options.tell(`${describeFigures(figures)}, ${open} segments now`);
      }
      await Bun.sleep(100);
    }
  }

  /** Nobody is killed any more: all go on, let go of all, and end. */
  async #finish(): Promise<void> {
    const hosts = [...this.#hosts];
    for (const host of hosts) host.say("finish");
    await Promise.all(hosts.map((host) => host.quiet));
    for (const host of hosts) host.say("close");
    await Promise.all(hosts.map((host) => host.over));
    await until(
      () => this.#server?.status().packs.length === 0,
      () => `the server has no pack (${JSON.stringify(this.#server?.status().packs)})`,
    );
    await until(
      () => segmentsOpen() === 0,
      () => `the server has no segment (it has ${segmentsOpen()})`,
    );
  }

  /** Ends what there still is of it. */
  async end(): Promise<void> {
    for (const host of this.#hosts) host.kill();
    await Promise.all([...this.#hosts].map((host) => host.over.catch(() => undefined)));
    await this.#server?.stop();
  }
}

/** What a host says. */
interface Said {
  readonly done?: number;
  readonly bytes?: number;
  readonly ended?: string | true;
  readonly killed?: number;
  readonly quiet?: object;
  readonly failed?: string;
}

class Host {
  readonly #child: Child;
  readonly #figures: SoakFigures;
  readonly #quiet = Promise.withResolvers<void>();
  /** Rejects where it failed; settles when it has ended otherwise, be it killed. */
  readonly over: Promise<void>;
  #isKilled = false;
  #hasEnded = false;

  constructor(child: Child, figures: SoakFigures) {
    this.#child = child;
    this.#figures = figures;
    this.#quiet.promise.catch(() => undefined);
    this.over = this.#run();
    this.over.catch((error) => this.#quiet.reject(error));
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Settles when it has let go of everything. */
  get quiet(): Promise<void> {
    return this.#quiet.promise;
  }

  say(command: string): void {
    this.#child.stdin.write(`${command}\n`);
    this.#child.stdin.flush();
  }

  kill(): void {
    this.#isKilled = true;
    this.#child.kill("SIGKILL");
  }

  async #run(): Promise<void> {
    const stderr = new Response(this.#child.stderr).text();
    let rest = "";
    const decoder = new TextDecoder();
    for await (const chunk of this.#child.stdout) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.#hear(JSON.parse(line));
    }
    const code = await this.#child.exited;
    const said = await stderr;
    this.#child.stdin.end();
    if (this.#isKilled) return;
    if (code !== 0 || !this.#hasEnded) throw new Error(`a host ended with ${code}: ${said}`);
    if (said !== "") throw new Error(`a host complained: ${said}`);
  }

  #hear(said: Said): void {
    if (said.failed !== undefined) throw new Error(`in host ${this.pid}: ${said.failed}`);
    if (said.quiet !== undefined) this.#quiet.resolve();
    else if (said.ended === true) this.#hasEnded = true;
    else this.#count(said);
  }

  #count({ done = 0, bytes = 0, killed = 0, ended }: Said): void {
    const figures = this.#figures;
    figures.transfers += done;
    figures.bytes += bytes;
    figures.workersKilled += killed;
    figures.killedAsAnswered += killed;
    if (typeof ended === "string" && ended !== "done") {
      figures.interrupted.set(ended, (figures.interrupted.get(ended) ?? 0) + 1);
    }
  }
}

export function describeFigures(figures: SoakFigures): string {
  const interrupted = [...figures.interrupted].map(([code, count]) => `${count} ${code}`).join(", ") || "none";
  return [
    `${figures.transfers} transfers of ${(figures.bytes / 2 ** 30).toFixed(1)} GiB in ${figures.seconds.toFixed(0)} s`,
    `interrupted: ${interrupted}`,
    `killed: ${figures.workersKilled} workers (${figures.killedAsAnswered} as they answered), ${figures.hostsKilled} hosts`,
    `paused: ${figures.paused}`,
    `at most ${figures.segmentsMost} segments`,
  ].join("; ");
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended meanwhile.
  }
}

/** This process's descriptors, each with what it is of. */
function descriptors(): string[] {
  return readdirSync("/proc/self/fd").map((number) => {
    try {
      return `${number} ${readlinkSync(`/proc/self/fd/${number}`)}`;
    } catch {
      return `${number} closed`;
    }
  });
}

/** Segments that the server, which runs in this process, has open. */
function segmentsOpen(): number {
  return descriptors().filter((each) => each.includes("airlock-segment")).length;
}

/** Processes of this soak's that have not ended. */
function marked(mark: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map(Number)
    .filter((pid) => {
      try {
        const isOurs = readFileSync(`/proc/${pid}/environ`, "latin1").includes(`${mark}=1`);
        return isOurs && !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
      } catch {
        return false;
      }
    });
}
