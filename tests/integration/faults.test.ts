/** Processes that die, at every place where one can: whoever waits is told, nothing stays, and the next call works. */
import { describe, expect, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect as connectSocket, createServer } from "node:net";
import { dirname, join } from "node:path";
import { type AirlockError, connect, type ErrorCode, Tuple } from "../../src/index.ts";
import { rejectionOf } from "../support/errors.ts";
import { readLines, startHost, startServer } from "./processes.ts";
import { isAlive, packs, root, until, untilLogged, useWorld } from "./support.ts";

const world = useWorld();

describe("a worker that ends during a call", () => {
  const ends: readonly (readonly [how: string, exit: string])[] = [
    ["SIGKILL", "killed by SIGKILL"],
    ["SIGSEGV", "killed by SIGSEGV"],
    ["fault", "killed by SIGSEGV"],
    ["SIGTERM", "killed by SIGTERM"],
    ["exit", "exit code 0"],
    ["_exit", "exit code 3"],
    ["_exit in a thread", "exit code 3"],
    ["abort", "killed by SIGABRT"],
  ];
  const crashes = ["SIGSEGV", "fault", "abort"];
  test.each(ends)(
    "by %s: its caller is told how, with the log's last lines; the next call has a fresh one",
    async (how, exit) => {
      const { pack } = await world.probe();
      const before = (await pack.describe()) as { pid: number };
      const error = await rejectionOf(pack.call("End", { how }));
      expect(error.code).toBe("worker_died" satisfies ErrorCode);
      expect(error.details.pack).toBe("probe");
      expect(error.details.exit).toStartWith(exit);
      expect(error.details.log).toContain(`about to end by ${how}`);
      if (crashes.includes(how)) {
        expect(error.details.stack).toMatch(
          /^Fatal Python error: .*\n\nCurrent thread .*(\n {2}File .*)*nodes\.py", line \d+ in run/,
        );
        expect(error.describe()).toContain("Fatal Python error");
      } else expect(error.details.stack).toBeUndefined();
      const after = (await pack.describe()) as { pid: number };
      expect(after.pid).not.toBe(before.pid);
      expect(isAlive(before.pid)).toBe(false);
    },
  );

  test("by exit ends by itself, every time", async () => {
    const { pack } = await world.probe({ limits: { backoffMsMin: 1, deathsMax: 100, drainMsMax: 200 } });
    const exits: (string | undefined)[] = [];
    for (let turn = 0; turn < 12; turn++)
      exits.push((await rejectionOf(pack.call("End", { how: "exit" }))).details.exit);
    expect(new Set(exits)).toEqual(new Set(["exit code 0"]));
  });

  test("fails all its calls, and none of another pack's", async () => {
    const { server, pack } = await world.probe();
    await pack.describe();
    const other = await (await world.connect(server)).open(join(packs, "probe"));
    await other.describe();
    const slow = other.call("AsyncEcho", { value: "unharmed", seconds: 0.5 });
    const waiting = [pack.call("AsyncEcho", { seconds: 30 }), pack.call("AsyncEcho", { seconds: 30 })].map(rejectionOf);
    await untilLogged(server, "waiting", 2);
    await rejectionOf(pack.call("End", { how: "SIGKILL" }));
    for (const error of await Promise.all(waiting)) expect(error.code).toBe("worker_died");
    expect(await slow).toEqual(Tuple.of("unharmed"));
  });

  test("takes what it forked and started along, though they hold its connection open", async () => {
    const { pack } = await world.probe();
    const children = [await pack.call("Fork"), await pack.call("Spawn")].map(
      (result) => (result as number[])[0] as number,
    );
    const error = await rejectionOf(pack.call("End", { how: "SIGKILL" }));
    expect(error.code).toBe("worker_died");
    await until(() => !children.some(isAlive), "its children are gone");
  });

  test("is reported as such also while it was stopped", async () => {
    const { pack } = await world.probe();
    const { pid } = (await pack.describe()) as { pid: number };
    process.kill(pid, "SIGSTOP");
    const call = rejectionOf(pack.call("Echo", { value: 1 }));
    process.kill(pid, "SIGKILL");
    expect((await call).details.exit).toStartWith("killed by SIGKILL");
  });

  test("between calls is not an error: the next call has a fresh one", async () => {
    const { pack } = await world.probe();
    for (const signal of ["SIGKILL", "SIGSEGV"] as const) {
      const { pid } = (await pack.describe()) as { pid: number };
      process.kill(pid, signal);
      await until(() => !isAlive(pid), "it is dead");
      expect(await pack.call("Echo", { value: signal }).catch((error: AirlockError) => error.code)).toBeOneOf([
        Tuple.of(signal),
        // The call may have been on its way when the worker died: never sent twice.
        "worker_died",
      ]);
    }
  });
});

describe("a host that is killed", () => {
  test.each(["SIGKILL", "SIGTERM"] as const)(
    "with %s takes its worker along, also one in C code that holds the GIL",
    async (signal) => {
      const server = await world.serve();
      const host = await startHost(world, "SleepHoldingGil", { seconds: 600 });
      host.child.kill(signal);
      await host.child.exited;
      await until(() => !isAlive(host.worker), "its worker is gone");
      expect(server.status().packs).toEqual([]);
    },
  );

  test("leaves the workers of other hosts alone", async () => {
    const { pack } = await world.probe();
    const { pid } = (await pack.describe()) as { pid: number };
    const host = await startHost(world, "Sleep", { seconds: 600 });
    host.child.kill("SIGKILL");
    await until(() => !isAlive(host.worker), "its worker is gone");
    expect(((await pack.describe()) as { pid: number }).pid).toBe(pid);
  });

  test("ends a server of its own", async () => {
    const airlock = join(world.folder, "airlock");
    const entry = join(import.meta.dir, "..", "..", "bin", "airlock.mjs");
    writeFileSync(airlock, `#!/bin/sh\nexec node ${entry} "$@"\n`, { mode: 0o755 });
    const host = await startHost(
      world,
      "SleepHoldingGil",
      { seconds: 600 },
      { AIRLOCK_BIN: airlock, AIRLOCK_SOCKET: "" },
    );
    expect(existsSync(host.socket)).toBe(true);
    host.child.kill("SIGKILL");
    await until(() => !isAlive(host.worker), "its worker is gone");
    await until(() => !existsSync(dirname(host.socket)), "its server is gone, and the folder made for it");
  });
});

describe("a server that is killed", () => {
  test("takes its workers along, also one in C code that holds the GIL, and its hosts are told", async () => {
    const server = await startServer(world);
    const host = await startHost(world, "SleepHoldingGil", { seconds: 600 });
    server.kill("SIGKILL");
    expect((await host.outcome).error).toBe("disconnected");
    await until(() => !isAlive(host.worker), "its worker is gone");
    await host.child.exited;
    // The socket file that it left is recognised as nobody's, and replaced.
    expect(existsSync(world.socket)).toBe(true);
    const { pack } = await world.probe();
    expect(await pack.call("Echo", { value: 1 })).toEqual(Tuple.of(1));
  });

  test("rejects a TypeScript host's calls too", async () => {
    const server = await startServer(world);
    const airlock = await connect({ socket: world.socket });
    const pack = await airlock.open(join(packs, "probe"));
    await pack.describe();
    const call = rejectionOf(pack.call("Sleep", { seconds: 600 }));
    server.kill("SIGKILL");
    expect((await call).code).toBe("disconnected");
    expect((await rejectionOf(pack.call("Echo"))).code).toBe("disconnected");
    await server.exited;
    await (await world.serve()).stop();
  });
});

describe("a server that is stopped", () => {
  test("with SIGTERM lets a call finish, refuses new ones, and leaves no socket file", async () => {
    const server = await startServer(world);
    const airlock = await connect({ socket: world.socket });
    const pack = await airlock.open(join(packs, "probe"));
    await pack.describe();
    const call = pack.call("AsyncEcho", { value: "finished", seconds: 0.5 });
    await untilLogged(airlock, "waiting");
    server.kill("SIGTERM");
    const refusal = async (): Promise<unknown> => await pack.call("Echo").catch((error: AirlockError) => error.code);
    await until(async () => (await refusal()) === "server_stopping", "new calls are refused");
    expect(await call).toEqual(Tuple.of("finished"));
    expect(await server.exited).toBe(0);
    expect(existsSync(world.socket)).toBe(false);
    await airlock.close();
  });

  test("lets a call over a line finish, which only its worker knows of", async () => {
    const server = await world.serve({ limits: { drainMsMax: 10_000 } });
    const host = await startHost(world, "SleepHoldingGil", { seconds: 1 });
    const log = server.status().packs[0]?.workers[0]?.log as string;
    await until(() => readFileSync(log, "utf8").includes("sleeping"), "its node runs");
    await server.stop();
    expect((await host.outcome).result).toBe("(1,)");
    await host.child.exited;
  });

  test("tells a caller over a line why its call ended", async () => {
    const server = await world.serve({ limits: { drainMsMax: 0 } });
    const host = await startHost(world, "SleepHoldingGil", { seconds: 600 });
    const log = server.status().packs[0]?.workers[0]?.log as string;
    await until(() => readFileSync(log, "utf8").includes("sleeping"), "its node runs");
    await server.stop();
    expect((await host.outcome).error).toBe("server_stopping");
    await host.child.exited;
  });

  test("ends calls that outlast the grace", async () => {
    const { server, pack } = await world.probe();
    await pack.describe();
    const call = rejectionOf(pack.call("Sleep", { seconds: 600 }));
    await untilLogged(server, "sleeping");
    await server.stop();
    expect((await call).code).toBe("server_stopping");
  });

  test("finishes a call that waits for its worker to start, and lets no further host in", async () => {
    const { server, airlock } = await world.probe({ limits: { drainMsMax: 10_000 } });
    const pack = await airlock.open(join(packs, "probe"));
    const call = pack.call("AsyncEcho", { value: "in time", seconds: 0.3 });
    await airlock.status();
    const stopped = server.stop();
    expect((await rejectionOf(connect({ socket: world.socket }))).code).toBe("server_stopping");
    expect(await call).toEqual(Tuple.of("in time"));
    await stopped;
    expect((await rejectionOf(connect({ socket: world.socket }))).code).toBe("disconnected");
  });

  test("shows out who has not said hello, and whoever does not read", async () => {
    const server = await world.serve();
    const silent = connectSocket(world.socket);
    const closed = new Promise<void>((resolve) => silent.once("close", () => resolve()));
    await new Promise<void>((resolve) => silent.once("connect", () => resolve()));
    silent.resume();
    await server.stop();
    await closed;
  });

  test.each(["SIGINT", "SIGHUP", "SIGTERM"] as const)("with %s ends in order", async (signal) => {
    const server = await startServer(world);
    server.kill(signal);
    expect(await server.exited).toBe(0);
    expect(readdirSync(world.folder).filter((name) => name.startsWith("server.sock"))).toEqual([]);
  });
});

describe("a socket path", () => {
  test("that servers race for, over the file of one that was killed, is one server's in the end", async () => {
    const killed = await startServer(world);
    killed.kill("SIGKILL");
    await killed.exited;
    const options = { socket: world.socket, environments: world.folder, logs: world.folder };
    const source = `import { serve } from ${JSON.stringify(join(root, "src", "index.ts"))};
      const server = await serve(${JSON.stringify(options)}).catch((error) => error);
      console.log(server.socketPath ?? server.message);
      for await (const _ of Bun.stdin.stream());
      await server.stop?.();`;
    const racers = Array.from({ length: 4 }, () =>
      Bun.spawn([process.execPath, "-e", source], { env: world.variables(), stdio: ["pipe", "pipe", "inherit"] }),
    );
    const said = await Promise.all(racers.map(async ({ stdout }) => (await readLines(stdout).next()).value));
    expect(said.filter((each) => each === world.socket)).toHaveLength(1);
    expect(said.filter((each) => each?.includes("a server is running at"))).toHaveLength(3);
    await (await connect({ socket: world.socket })).close();
    for (const racer of racers) racer.stdin.end();
    await Promise.all(racers.map((racer) => racer.exited));
    expect(readdirSync(world.folder).filter((name) => name.startsWith("server.sock"))).toEqual([]);
  });

  test("that a live server listens on is refused, and that server unharmed", async () => {
    const { pack } = await world.probe();
    expect((await rejectionOf(world.serve())).message).toContain("a server is running");
    expect(await pack.call("Echo", { value: 1 })).toEqual(Tuple.of(1));
  });

  test("that is a file, or that a foreign program listens on, is refused and left as it is", async () => {
    const file = join(world.folder, "file");
    writeFileSync(file, "precious");
    expect((await rejectionOf(world.serve({ socket: file }))).message).toContain("not a socket");
    const foreign = createServer().listen(join(world.folder, "foreign.sock"));
    expect((await rejectionOf(world.serve({ socket: join(world.folder, "foreign.sock") }))).code).toBe("bad_request");
    foreign.close();
  });

  test("that is too long is refused with its length", async () => {
    expect((await rejectionOf(world.serve({ socket: `/tmp/${"x".repeat(120)}` }))).message).toContain("125 bytes");
  });

  test("in a folder that others can write is refused", async () => {
    const shared = join(world.folder, "shared");
    mkdirSync(shared);
    chmodSync(shared, 0o777);
    expect((await rejectionOf(world.serve({ socket: join(shared, "s.sock") }))).code).toBe("unauthorized");
  });
});
