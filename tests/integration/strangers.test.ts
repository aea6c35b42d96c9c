/** Peers that don't belong, or don't keep to the protocol: a clear error, their connection closed, nobody else disturbed. */
import { describe, expect, test } from "bun:test";
import { chmodSync, existsSync, rmSync } from "node:fs";
import { connect as connectSocket, type Socket } from "node:net";
import { join } from "node:path";
import { AirlockError, connect, Tuple } from "../../src/index.ts";
import { Door, type ExpectedWorker } from "../../src/server/door.ts";
import type { Pack } from "../../src/server/pack.ts";
import type { Router } from "../../src/server/router.ts";
import type { Worker } from "../../src/server/workers/worker.ts";
import { systemClock } from "../../src/transport/clock.ts";
import { decode, encode } from "../../src/transport/codec.ts";
import { buildFrame, FrameAssembler, FrameKind, frameBody } from "../../src/transport/frame.ts";
import { loadLibc } from "../../src/transport/libc.ts";
import { defaultLimits } from "../../src/transport/limits.ts";
import { rejectionOf } from "../support/errors.ts";
import { readLines } from "./processes.ts";
import { isAlive, until, useWorld } from "./support.ts";

const world = useWorld();

/** A raw connection: what it is told, and that it was closed. */
class Stranger {
  readonly told: Record<string, unknown>[] = [];
  closed = false;
  readonly socket: Socket;

  constructor(path: string) {
    const assembler = new FrameAssembler(defaultLimits);
    this.socket = connectSocket(path);
    this.socket.on("data", (chunk: Buffer) =>
      assembler.push(chunk, (frame) => this.told.push(decode(frameBody(frame)) as Record<string, unknown>)),
    );
    this.socket.on("error", () => undefined);
    this.socket.on("close", () => {
      this.closed = true;
    });
  }

  async refusal(): Promise<unknown> {
    await until(() => this.closed, "the stranger is shown out");
    return this.told.at(-1)?.["code"];
  }
}

const hello = { protocol: { min: 1, max: 1 }, features: [], role: "host", name: "stranger", pid: process.pid };
const helloFrame = (fields: object): Uint8Array =>
  buildFrame({ kind: FrameKind.hello, peer: 0, call: 0, body: encode({ ...hello, ...fields }) });
const call = (number: number, peer: number): Uint8Array =>
  buildFrame({ kind: FrameKind.call, peer, call: number, body: encode(["status", [], {}]) });
const MiB = 1024 * 1024;
/** A header alone, of a frame that never comes. */
function header(kind: FrameKind, length: number): Uint8Array {
  const bytes = new Uint8Array(16);
  new DataView(bytes.buffer).setUint32(0, length, true);
  bytes[4] = kind;
  return bytes;
}

describe("is shown out, with the reason", () => {
  const cases: readonly (readonly [what: string, bytes: readonly Uint8Array[], code: string])[] = [
    ["garbage", [new Uint8Array(64).fill(0xff)], "limit_exceeded"],
    ["a large hello, by its header", [header(FrameKind.hello, 2 * MiB)], "limit_exceeded"],
    ["a large call to the server, by its header", [helloFrame({}), header(FrameKind.call, 2 * MiB)], "limit_exceeded"],
    ["an HTTP request", [new TextEncoder().encode("GET / HTTP/1.1\r\nHost: x\r\n\r\n")], "limit_exceeded"],
    ["a frame over the limit", [header(FrameKind.hello, 0xffff_ffff)], "limit_exceeded"],
    ["a call before the hello", [call(1, 0)], "protocol_error"],
    ["a version that the server doesn't speak", [helloFrame({ protocol: { min: 7, max: 9 } })], "unsupported_version"],
    ["a hello without its fields", [helloFrame({ role: "king" })], "bad_request"],
    ["a worker with a wrong token", [helloFrame({ role: "worker", token: "guess" })], "unauthorized"],
    ["a worker without a token", [helloFrame({ role: "worker" })], "unauthorized"],
    ["a second hello", [helloFrame({}), helloFrame({})], "protocol_error"],
    ["a call number that is in use", [helloFrame({}), call(1, 0), call(1, 0)], "protocol_error"],
    ["call number 0", [helloFrame({}), call(0, 0)], "protocol_error"],
    [
      "an answer to nobody's call",
      [helloFrame({}), buildFrame({ kind: FrameKind.result, peer: 1, call: 9, body: encode(null) })],
      "protocol_error",
    ],
  ];
  test.each(cases)("%s", async (_, bytes, code) => {
    const { pack } = await world.probe();
    const stranger = new Stranger(world.socket);
    stranger.socket.write(Buffer.concat(bytes));
    expect(await stranger.refusal()).toBe(code);
    expect(await pack.call("Echo", { value: "undisturbed" })).toEqual(Tuple.of("undisturbed"));
  });

  test("who says nothing", async () => {
    const { pack } = await world.probe({ limits: { helloMsMax: 50, drainMsMax: 0 } });
    const stranger = new Stranger(world.socket);
    expect(await stranger.refusal()).toBe("protocol_error");
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
    expected,
    onEvent: () => undefined,
    onHostGone: () => undefined,
  });
  const worker = { pid: process.pid + 1 } as Worker;
  expected.set("token", { worker, pack: {} as Pack });
  const stranger = new Stranger(world.socket);
  stranger.socket.write(helloFrame({ role: "worker", token: "token" }));
  expect(await stranger.refusal()).toBe("unauthorized");
  expect(stranger.told.at(-1)?.["message"]).toContain(`process ${process.pid} is not the worker`);
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
  const stranger = new Stranger(world.socket);
  for (const byte of helloFrame({})) {
    stranger.socket.write(Uint8Array.of(byte));
    await Bun.sleep(0);
  }
  await until(() => stranger.told.length === 1, "it is welcomed");
  expect(stranger.told[0]?.["protocol"]).toBe(1);
  stranger.socket.destroy();
});

test("a host cannot reach another host's pack, nor its worker by number", async () => {
  const { server, pack } = await world.probe();
  await pack.describe();
  const stranger = new Stranger(world.socket);
  stranger.socket.write(
    Buffer.concat([helloFrame({}), ...Array.from({ length: 20 }, (_, peer) => call(peer + 1, peer + 1))]),
  );
  await until(() => stranger.told.length === 21, "all calls are answered");
  for (const answer of stranger.told.slice(1)) expect(answer["code"]).toBe("pack_not_open");
  expect(server.status().packs.length).toBe(1);
  stranger.socket.destroy();
});

test("a host that sends what is no value to a node gets an error for that call, and the worker goes on", async () => {
  const { server, pack } = await world.probe();
  const { pid } = (await pack.describe()) as { pid: number };
  const stranger = new Stranger(world.socket);
  const folder = join(import.meta.dir, "..", "packs", "probe");
  stranger.socket.write(
    Buffer.concat([
      helloFrame({}),
      buildFrame({ kind: FrameKind.call, peer: 0, call: 1, body: encode(["open", [], { folder }]) }),
    ]),
  );
  await until(() => stranger.told.length === 2, "the pack is open");
  const peer = stranger.told[1]?.["pack"] as number;
  const bomb = new Uint8Array(5000).fill(0x91);
  stranger.socket.write(buildFrame({ kind: FrameKind.call, peer, call: 2, body: bomb }));
  await until(() => stranger.told.at(-1)?.["code"] === "value_invalid", "the call is refused");
  stranger.socket.write(
    buildFrame({ kind: FrameKind.call, peer, call: 3, body: encode(["run", ["Echo"], { value: 1 }]) }),
  );
  await until(() => stranger.told.length >= 4 && Array.isArray(stranger.told.at(-1)), "the next one is carried out");
  stranger.socket.destroy();
  await until(() => server.status().packs.length === 1, "the stranger's pack is closed");
  expect(isAlive(pid)).toBe(true);
});
