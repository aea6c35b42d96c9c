/** Who does not belong here, or does not find in: a clear error, the connection closed, nobody else disturbed. */
import { describe, expect, test } from "bun:test";
import { chmodSync, existsSync, rmSync } from "node:fs";
import { AirlockError, connect, Tuple } from "../../src/index.ts";
import { Door, type ExpectedWorker } from "../../src/server/door.ts";
import type { Router } from "../../src/server/router.ts";
import type { Slot } from "../../src/server/slot.ts";
import type { Worker } from "../../src/server/workers/worker.ts";
import { systemClock } from "../../src/transport/clock.ts";
import type { FrameKind } from "../../src/transport/frame.ts";
import { loadLibc } from "../../src/transport/libc.ts";
import { defaultLimits } from "../../src/transport/limits.ts";
import { rejectionOf } from "../support/errors.ts";
import { readLines } from "./processes.ts";
import { bytesOf, codeIn, helloBytes, RawHost, RawPeer } from "./raw-peers.ts";
import { until, useWorld } from "./support.ts";

const world = useWorld();

const call = (number: number, peer: number) => bytesOf("call", peer, number, ["status", [], {}]);
const MiB = 1024 * 1024;
/** A header alone, of a frame that never comes. */
function header(kind: keyof typeof FrameKind, length: number): Uint8Array {
  const bytes = bytesOf(kind, 0, 0);
  new DataView(bytes.buffer).setUint32(0, length, true);
  return bytes;
}

/** Arrays in arrays, deeper than anybody reads. */
const nestingBomb = new Uint8Array(5000).fill(0x91);

describe("is shown out, with the reason", () => {
  const cases: readonly (readonly [what: string, bytes: readonly Uint8Array[], code: string])[] = [
    ["garbage", [new Uint8Array(64).fill(0xff)], "limit_exceeded"],
    ["a large hello, by its header", [header("hello", 2 * MiB)], "limit_exceeded"],
    ["a large call to the server, by its header", [helloBytes(), header("call", 2 * MiB)], "limit_exceeded"],
    ["an HTTP request", [new TextEncoder().encode("GET / HTTP/1.1\r\nHost: x\r\n\r\n")], "limit_exceeded"],
    ["a frame over the limit", [header("hello", 0xffff_ffff)], "limit_exceeded"],
    ["a call before the hello", [call(1, 0)], "protocol_error"],
    ["a version that the server doesn't speak", [helloBytes({ protocol: { min: 7, max: 9 } })], "unsupported_version"],
    ["a hello that nests for ever", [bytesOf("hello", 0, 0, undefined, { body: nestingBomb })], "value_invalid"],
    ["a hello without its fields", [helloBytes({ role: "king" })], "bad_request"],
    ["a worker with a wrong token", [helloBytes({ role: "worker", token: "guess" })], "unauthorized"],
    ["a worker without a token", [helloBytes({ role: "worker" })], "unauthorized"],
    ["a second hello", [helloBytes(), helloBytes()], "protocol_error"],
    ["a call number that is in use", [helloBytes(), call(1, 0), call(1, 0)], "protocol_error"],
    ["call number 0", [helloBytes(), call(0, 0)], "protocol_error"],
    ["an answer to nobody's call", [helloBytes(), bytesOf("result", 1, 9, null)], "protocol_error"],
  ];
  test.each(cases)("%s", async (_, bytes, code) => {
    const { pack } = await world.probe();
    const stranger = RawPeer.at(world.socket);
    stranger.write(...bytes);
    expect((await stranger.refusal()).code).toBe(code);
    expect(await pack.call("Echo", { value: "undisturbed" })).toEqual(Tuple.of("undisturbed"));
  });

  test("who says nothing", async () => {
    const { pack } = await world.probe({ limits: { helloMsMax: 50, drainMsMax: 0 } });
    const stranger = RawPeer.at(world.socket);
    expect((await stranger.refusal()).code).toBe("protocol_error");
    expect(await pack.call("Echo")).toEqual(Tuple.of(null));
  });
});

test("a worker's token is worth nothing in another process", async () => {
  const expected = new Map<string, ExpectedWorker>();
  const router = {} as Router;
  const door = new Door({
    socketPath: world.socket,
    version: "0",
    uid: process.getuid?.() ?? 0,
    limits: defaultLimits,
    clock: systemClock,
    router,
    libc: loadLibc(),
    sealsSegments: true,
    expected,
    onEvent: () => undefined,
    onHostGone: () => undefined,
  });
  const worker = { pid: process.pid + 1 } as Worker;
  expected.set("token", { worker, slot: {} as Slot });
  const stranger = RawPeer.at(world.socket);
  stranger.write(helloBytes({ role: "worker", token: "token" }));
  expect(await stranger.refusal()).toMatchObject({
    code: "unauthorized",
    message: expect.stringContaining(`process ${process.pid} is not the worker`),
  });
  expect(expected.size).toBe(1);
  await door.close(new AirlockError("server_stopping", "the test is over"));
});

// Only root can act as another user: elsewhere the kernel keeps the two apart before Airlock gets to.
describe.skipIf(process.getuid?.() !== 0)("another user (skipped unless the tests run as root)", () => {
  const nobody = 65534;
  const asNobody = (source: string, ...args: string[]) =>
    Bun.spawn(["python3", "-c", `import os, socket, sys\nos.setuid(${nobody})\n${source}`, ...args], {
      cwd: "/",
      stdio: ["pipe", "pipe", "inherit"],
    });

  test("is shown out by the server", async () => {
    await world.serve();
    chmodSync(world.folder, 0o755);
    chmodSync(world.socket, 0o777);
    const source = "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.makefile('rb').read())";
    const visitor = asNobody(source, world.socket);
    expect(await visitor.stdout.text()).toContain(`user ${nobody} may not connect to the server of user 0`);
  });

  test("is not trusted as the server", async () => {
    chmodSync(world.folder, 0o777);
    const listen = "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print(1, flush=True)";
    const impostor = asNobody(`${listen}; c, _ = s.accept(); print(c.recv(99))`, world.socket);
    await until(() => existsSync(world.socket), "the impostor listens");
    await readLines(impostor.stdout).next();
    const error = await rejectionOf(connect({ socket: world.socket }));
    expect([error.code, error.message]).toEqual(["unauthorized", expect.stringContaining(`user ${nobody}'s`)]);
    await impostor.exited;
    rmSync(world.socket);
  });
});

test("a hello that comes one byte at a time is let in", async () => {
  await world.serve();
  const stranger = RawPeer.at(world.socket);
  for (const byte of helloBytes()) {
    stranger.write(Uint8Array.of(byte));
    await Bun.sleep(0);
  }
  expect((await stranger.hear({ kind: "welcome" })).body).toMatchObject({ protocol: 1 });
  stranger.hangUp();
});

test("who hangs up in the middle of a hello leaves nothing behind", async () => {
  const { pack } = await world.probe();
  for (const length of [0, 1, 15, 16, 17, 40]) {
    const stranger = RawPeer.at(world.socket);
    stranger.write(helloBytes().slice(0, length));
    stranger.end();
    await until(() => stranger.closed, "its connection is closed");
  }
  expect(await pack.call("Echo", { value: "undisturbed" })).toEqual(Tuple.of("undisturbed"));
});

test("a host cannot reach another host's pack, nor its worker by number", async () => {
  const { server, pack } = await world.probe();
  await pack.describe();
  const stranger = await RawHost.join(world);
  for (let peer = 1; peer <= 20; peer++) {
    for (const kind of ["event", "release"] as const) stranger.send(kind, peer, 0, ["e", 1]);
    stranger.send("call", peer, peer, ["run", ["Echo"], {}]);
  }
  for (let peer = 1; peer <= 20; peer++) {
    expect(codeIn(await stranger.hear({ kind: "error", call: peer }))).toBe("pack_not_open");
  }
  expect(server.status().packs.length).toBe(1);
  stranger.hangUp();
});
