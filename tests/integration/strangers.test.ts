/** Peers that don't belong, or don't keep to the protocol: a clear error, their connection closed, nobody else disturbed. */
import { describe, expect, test } from "bun:test";
import { connect as connectSocket, type Socket } from "node:net";
import { join } from "node:path";
import { Tuple } from "../../src/index.ts";
import { decode, encode } from "../../src/transport/codec.ts";
import { buildFrame, FrameAssembler, FrameKind, frameBody } from "../../src/transport/frame.ts";
import { defaultLimits } from "../../src/transport/limits.ts";
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
const oversized = new Uint8Array(16);
new DataView(oversized.buffer).setUint32(0, 0xffff_ffff, true);
oversized[4] = FrameKind.hello;

describe("is shown out, with the reason", () => {
  const cases: readonly (readonly [what: string, bytes: readonly Uint8Array[], code: string])[] = [
    ["garbage", [new Uint8Array(64).fill(0xff)], "limit_exceeded"],
    ["an HTTP request", [new TextEncoder().encode("GET / HTTP/1.1\r\nHost: x\r\n\r\n")], "limit_exceeded"],
    ["a frame over the limit", [oversized], "limit_exceeded"],
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
