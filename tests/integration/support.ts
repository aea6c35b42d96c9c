/**
 * A server and clients for tests with real processes, and the proof that nothing of them is left.
 */
import { afterEach, beforeEach, expect } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Airlock,
  connect,
  type Pack,
  type ServeOptions,
  type Server,
  type Status,
  serve,
} from "../../src/index.ts";
import type { Limits } from "../../src/transport/limits.ts";
import { until } from "../support/until.ts";

export { until };

export const root = join(import.meta.dir, "..", "..");
export const packs = join(root, "tests", "packs");
/** Environments outlive the tests: making them is tested elsewhere. */
const environments = join(root, ".airlock", "test-environments");

/** In the environment of every process that a test starts, also through a worker's. */
const mark = `AIRTEST_${process.pid}`;
process.env[mark] = "1";

/** Processes that tests started and that have not ended; zombies count as ended. */
export function processesLeft(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map(Number)
    .filter((pid) => isOurs(pid) && isAlive(pid));
}

function isOurs(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/environ`, "latin1").includes(`${mark}=1`);
  } catch {
    return false;
  }
}

export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

/** Waits until the worker of the only pack has written `text` to its log, so often: what comes over a line only it sees. */
export async function untilLogged(
  server: { status(): Status | Promise<Status> },
  text: string,
  times = 1,
): Promise<void> {
  const { packs } = await server.status();
  const log = packs[0]?.workers[0]?.log ?? "";
  await until(() => readFileSync(log, "utf8").split(text).length > times, `its log says ${text}`);
}

/** This process's descriptors, each with what it is of. */
function descriptors(): string[] {
  return readdirSync("/proc/self/fd").map((number) => `${number} ${targetOf(number)}`);
}

function targetOf(descriptor: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${descriptor}`);
  } catch {
    return "closed";
  }
}

export interface World {
  /** A folder of the test's own, removed after it. */
  readonly folder: string;
  readonly socket: string;
  serve(options?: ServeOptions): Promise<Server>;
  connect(server: Server, limits?: Partial<Limits>): Promise<Airlock>;
  /** A server, a client, and the probe pack. */
  probe(options?: ServeOptions): Promise<{ server: Server; airlock: Airlock; pack: Pack }>;
  /** Variables for a server in a process of its own. */
  variables(): Record<string, string>;
}

/** To be called once in a describe block or file: makes a world before each test, and ends it after. */
export function useWorld(): World {
  let folder = "";
  let open: (Server | Airlock)[] = [];
  let before: string[] = [];
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "air-"));
    open = [];
    before = descriptors();
  });
  afterEach(async () => {
    for (const each of open.reverse()) await each[Symbol.asyncDispose]();
    await until(
      () => processesLeft().length === 0,
      () => `no process is left (${processesLeft().join(", ")})`,
    );
    await until(
      () => descriptors().length <= before.length,
      () => `no descriptor is left (${descriptors().join(", ")}; before: ${before.join(", ")})`,
    );
    expect(existsSync(join(folder, "server.sock"))).toBe(false);
    rmSync(folder, { recursive: true, force: true });
  });
  const world: World = {
    get folder() {
      return folder;
    },
    get socket() {
      return join(folder, "server.sock");
    },
    async serve(options = {}) {
      const server = await serve({
        socket: world.socket,
        environments,
        libraries: join(root, ".airlock", "test-libraries"),
        logs: join(folder, "logs"),
        limits: { drainMsMax: 200 },
        ...options,
      });
      open.push(server);
      return server;
    },
    async connect(server, limits = {}) {
      const airlock = await connect({ socket: server.socketPath, name: "test", limits });
      open.push(airlock);
      return airlock;
    },
    async probe(options) {
      const server = await world.serve(options);
      const airlock = await world.connect(server, options?.limits);
      return { server, airlock, pack: await airlock.open(join(packs, "probe")) };
    },
    variables() {
      const cache = join(root, ".airlock", "test-cache");
      return {
        ...(process.env as Record<string, string>),
        XDG_CACHE_HOME: cache,
        XDG_STATE_HOME: join(folder, "state"),
      };
    },
  };
  return world;
}
