import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type ConnectOptions, connect } from "../../../src/client/client.ts";
import type { Pack } from "../../../src/client/pack.ts";
import { encode } from "../../../src/transport/codec.ts";
import type { Progress } from "../../../src/transport/control.ts";
import type { AirlockError } from "../../../src/transport/errors.ts";
import { NdArray, Tuple } from "../../../src/transport/values.ts";
import { bytesOf } from "../../support/bytes.ts";
import { rejectionOf } from "../../support/errors.ts";
import { temporaryFolders } from "../../support/folders.ts";
import { openedAs } from "../../support/peers.ts";
import { ScriptedServer } from "../../support/scripted-server.ts";
import { until } from "../../support/until.ts";

const newFolder = temporaryFolders();
const newServer = () => new ScriptedServer(join(newFolder(), "server.sock"));

/** A client that is let in, with a pack open as peer 5, and the server that it talks to. Its next call is its second. */
async function connected(options: ConnectOptions = {}) {
  const server = newServer();
  const airlock = await connect({ socket: server.path, name: "test", ...options });
  const hello = await server.next();
  const opening = airlock.open("/packs/blur");
  const { call } = await server.next();
  server.send("result", { call, body: encode(openedAs(5)) });
  return {
    server,
    airlock,
    pack: await opening,
    hello,
    async [Symbol.asyncDispose]() {
      server[Symbol.dispose]();
      await airlock.close();
    },
  };
}

/** A call to peer 5, and its promise; a rejection that the test looks at later is nobody's surprise. */
function callOf({ pack }: { pack: Pack }, options = {}) {
  const promise = pack.callRaw("Blur", { radius: 2 }, options);
  promise.catch(() => undefined);
  return promise;
}

const fault = (code: string, message: string) => encode({ code, message });

describe("connecting", () => {
  test("says hello as a host, and is welcomed", async () => {
    await using made = await connected();
    expect(made.hello).toMatchObject({
      kind: "hello",
      peer: 0,
      call: 0,
      body: { role: "host", name: "test", pid: process.pid, features: ["line", "credit", "segments"] },
    });
  });

  test("where no server is says so", async () => {
    const error = await rejectionOf(connect({ socket: join(newFolder(), "server.sock") }));
    expect([error.code, error.details.hint]).toEqual(["disconnected", "start one with `airlock serve`"]);
  });

  test.each<[string, (server: ScriptedServer) => void, string, string]>([
    [
      "refuses",
      (server) => server.send("error", { body: fault("unauthorized", "not you") }),
      "unauthorized",
      "not you",
    ],
    ["hangs up", (server) => server.hangUp(), "disconnected", "closed the connection"],
    [
      "welcomes in words unknown",
      (server) => server.send("welcome", { body: encode({}) }),
      "bad_request",
      "malformed welcome",
    ],
    [
      "welcomes with broken bytes",
      (server) => server.send("welcome", { body: bytesOf("c1") }),
      "value_invalid",
      "0xc1",
    ],
    [
      "speaks another protocol",
      (server) => server.write(Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n")),
      "limit_exceeded",
      "over the limit",
    ],
    ["refuses with broken bytes", (server) => server.send("error", { body: bytesOf("c1") }), "value_invalid", "0xc1"],
  ])("to a server that %s fails with the reason", async (_, answer, code, words) => {
    using server = newServer();
    server.welcoming = false;
    const opening = connect({ socket: server.path });
    opening.catch(() => undefined);
    await server.next();
    answer(server);
    const error = await rejectionOf(opening);
    expect(error.code as string).toBe(code);
    expect(error.message).toContain(words);
    await server.closed;
  });
});

describe("a call", () => {
  test("that is too large for a frame fails alone, before anything of it is sent", async () => {
    await using made = await connected({ limits: { frameBytesMax: 1000, controlBytesMax: 500 } });
    const { server, airlock, pack } = made;
    const text = "x".repeat(990);
    expect((await rejectionOf(pack.call("Blur", { text }))).code).toBe("limit_exceeded");
    expect((await rejectionOf(airlock.open(`/${text.slice(500)}`))).message).toContain("over the limit of 500 bytes");
    const promise = callOf(made);
    const { call, peer } = await server.next();
    expect(peer).toBe(5);
    server.send("result", { peer: 5, call, body: encode(1) });
    expect((await promise).bytes[0]).toBe(1);
  });

  test("carries method, arguments and deadline, and gives its result still encoded", async () => {
    await using made = await connected();
    const promise = callOf(made, { deadlineMs: 1500 });
    const sent = await made.server.next();
    expect(sent).toEqual({ kind: "call", peer: 5, call: 2, body: ["run", ["Blur"], { radius: 2 }] });
    const result = encode(Tuple.of<unknown>(1, "a"));
    made.server.send("result", { peer: 5, call: 2, body: result });
    expect(new Uint8Array((await promise).bytes)).toEqual(new Uint8Array(result));
  });

  test("with a large tensor crosses whole, both ways", async () => {
    await using made = await connected();
    const data = new Uint8Array(3_000_000).map((_, index) => index * 7);
    const image = new NdArray("tensor", "uint8", [3, 1000, 1000], data);
    const promise = made.pack.callRaw("Blur", { image });
    const { call, body } = await made.server.next();
    const [, , keywords] = body as [string, unknown[], { image: NdArray }];
    expect(Buffer.compare(keywords.image.data, data)).toBe(0);
    made.server.send("result", { peer: 5, call, body: encode(image) });
    expect((await promise).bytes.byteLength).toBe(encode(image).byteLength);
  });

  test("gets the answer to its own number, in whatever order they come", async () => {
    await using made = await connected();
    const promises = [1, 2, 3].map(() => callOf(made));
    const calls = [await made.server.next(), await made.server.next(), await made.server.next()].map(
      ({ call }) => call,
    );
    expect(new Set(calls).size).toBe(3);
    for (const call of calls.toReversed()) made.server.send("result", { peer: 5, call, body: encode(call) });
    expect((await Promise.all(promises)).map(({ bytes }) => bytes[0])).toEqual(calls);
  });

  test("that fails is rejected with the error of the wire", async () => {
    await using made = await connected();
    const promise = callOf(made);
    const { call } = await made.server.next();
    const exception = { types: ["builtins.ValueError"], message: "bad", traceback: "Traceback" };
    made.server.send("error", { call, body: encode({ code: "remote_exception", message: "bad", exception }) });
    const error = await rejectionOf(promise);
    expect([error.code, error.details.exception]).toEqual(["remote_exception", exception]);
  });

  test("whose error makes no sense is rejected, and no other call with it", async () => {
    await using made = await connected();
    const promises = [callOf(made), callOf(made)];
    made.server.send("error", { call: 2, body: bytesOf("c1") });
    made.server.send("result", { call: 3, body: encode(null) });
    const [broken, sound] = promises;
    if (!broken || !sound) return expect.unreachable();
    expect((await rejectionOf(broken)).code).toBe("value_invalid");
    await sound;
  });

  test("with an argument that cannot cross is rejected, and nothing is sent", async () => {
    await using made = await connected();
    const error = await rejectionOf(made.pack.call("Blur", { mode: new URL("file:///") }));
    expect([error.code, error.message.startsWith("value[2].mode is a URL")]).toEqual(["value_unsupported", true]);
    callOf(made);
    expect((await made.server.next()).call).toBe(2);
  });

  test("answered twice, or answered without being made, harms nobody", async () => {
    await using made = await connected();
    const promise = callOf(made);
    made.server.send("result", { call: 99, body: encode("nobody's") });
    made.server.send("progress", { call: 99, body: encode("nobody's") });
    made.server.send("result", { call: 2, body: encode("first") });
    made.server.send("error", { call: 2, body: fault("cancelled", "late") });
    expect((await promise).bytes[0]).toBe(0xa5);
    const next = callOf(made);
    made.server.send("result", { call: 3, body: encode(null) });
    await next;
  });
});

describe("progress", () => {
  const stage = (name: string): Progress => ({ pack: "blur", stage: name, message: "m" });

  test("is told to the call that it is of, until its answer", async () => {
    await using made = await connected();
    const told: Progress[] = [];
    const promise = callOf(made, { onProgress: (progress: Progress) => told.push(progress) });
    const silent = callOf(made);
    for (const name of ["resolve", "install"]) made.server.send("progress", { call: 2, body: encode(stage(name)) });
    made.server.send("progress", { call: 3, body: encode(stage("unheard")) });
    for (const call of [2, 3]) made.server.send("result", { call, body: encode(null) });
    await Promise.all([promise, silent]);
    expect(told).toEqual([stage("resolve"), stage("install")]);
  });

  test.each<[string, Uint8Array, string]>([
    ["makes no sense", encode({ stage: 5 }), "malformed progress"],
    ["is no value", bytesOf("c1"), "0xc1"],
    ["its listener chokes on", encode(stage("install")), "listener"],
  ])("that %s ends its call and no other", async (_, body, words) => {
    await using made = await connected();
    const onProgress = () => {
      throw new TypeError("a fault of the listener");
    };
    const promise = callOf(made, { onProgress });
    const other = callOf(made);
    await made.server.next();
    await made.server.next();
    made.server.send("progress", { call: 2, body });
    expect(promise).rejects.toThrow(words);
    expect(await made.server.next()).toEqual({ kind: "cancel", peer: 5, call: 2, body: undefined });
    made.server.send("result", { call: 3, body: encode(null) });
    await other;
  });
});

describe("what the server tells of its own accord", () => {
  test("that a worker has ended is told to who listens, until they stop", async () => {
    await using made = await connected();
    const told: string[] = [];
    const stop = made.pack.onWorkerEnded(() => told.push("first"));
    made.pack.onWorkerEnded(() => told.push("second"));
    const ended = (pack: number) => made.server.send("event", { body: encode(["worker_ended", { pack, number: 1 }]) });
    ended(99);
    ended(5);
    await until(() => told.length === 2, "both are told");
    stop();
    ended(5);
    await until(() => told.length === 3, "the second is told again");
    expect(told).toEqual(["first", "second", "second"]);
  });

  test("is passed over where this host has no word for it", async () => {
    await using made = await connected();
    made.server.send("event", { body: encode(["weather", "fine"]) });
    const promise = callOf(made);
    made.server.send("result", { peer: 5, call: 2, body: encode(null) });
    await promise;
  });

  test.each<[string, (server: ScriptedServer) => void, string]>([
    ["a line without a lane", (server) => server.send("line", { peer: 5, call: 1 }), "protocol_error"],
    ["an event of no sense", (server) => server.send("event", { body: encode(["worker_ended"]) }), "bad_request"],
    [
      "an ended worker of no pack",
      (server) => server.send("event", { body: encode(["worker_ended", 5]) }),
      "bad_request",
    ],
    ["a second welcome", (server) => server.send("welcome", { body: encode(null) }), "protocol_error"],
  ])("ends the connection where it is %s", async (_, tell, code) => {
    await using made = await connected();
    const call = rejectionOf(callOf(made));
    tell(made.server);
    expect((await call).code as string).toBe(code);
  });
});

describe("aborting", () => {
  test("sends a cancel and rejects with the signal's reason; the late answer is ignored", async () => {
    await using made = await connected();
    const abort = new AbortController();
    const promise = callOf(made, { signal: abort.signal });
    await made.server.next();
    const reason = new Error("the user changed their mind");
    abort.abort(reason);
    expect(await promise.catch((caught: unknown) => caught)).toBe(reason);
    expect(await made.server.next()).toEqual({ kind: "cancel", peer: 5, call: 2, body: undefined });
    made.server.send("result", { call: 2, body: encode("late") });
    const next = callOf(made);
    const { call } = await made.server.next();
    made.server.send("result", { call, body: encode(null) });
    await next;
  });

  test("before the call sends nothing", async () => {
    await using made = await connected();
    const reason = new Error("never mind");
    expect(await callOf(made, { signal: AbortSignal.abort(reason) }).catch((caught: unknown) => caught)).toBe(reason);
    callOf(made);
    expect((await made.server.next()).kind).toBe("call");
  });

  test("after the answer does nothing", async () => {
    await using made = await connected();
    const abort = new AbortController();
    const promise = callOf(made, { signal: abort.signal });
    await made.server.next();
    made.server.send("result", { call: 2, body: encode(null) });
    await promise;
    abort.abort();
    callOf(made);
    expect((await made.server.next()).kind).toBe("call");
  });
});

describe("a connection that ends", () => {
  test.each<[string, (server: ScriptedServer) => void, string]>([
    ["is closed by the server", (server) => server.hangUp(), "disconnected"],
    ["is broken", (server) => server.write(new Uint8Array(16)), "protocol_error"],
    [
      "is refused any further",
      (server) => server.send("error", { body: fault("limit_exceeded", "too much") }),
      "limit_exceeded",
    ],
    [
      "ends as the server stops",
      (server) => server.send("error", { body: fault("server_stopping", "bye") }),
      "server_stopping",
    ],
  ])("because it %s rejects every call under way, and those to come", async (_, end, code) => {
    await using made = await connected();
    const calls = [callOf(made), callOf(made)];
    await made.server.next();
    end(made.server);
    const errors = await Promise.all([...calls, callOf(made)].map(rejectionOf));
    const later = await rejectionOf(callOf(made));
    expect([...errors, later].map((error: AirlockError) => error.code as string)).toEqual([code, code, code, code]);
  });

  test("by close rejects what is under way, and can be closed again", async () => {
    await using made = await connected();
    const promise = callOf(made);
    await made.airlock.close();
    await made.airlock.close();
    const error = await rejectionOf(promise);
    expect([error.code, error.message]).toEqual(["disconnected", "the connection was closed by this host"]);
    await made.server.closed;
  });
});

describe("a pack", () => {
  /** Answers the next call, which must be of `method`, with `value`. */
  async function answer(server: ScriptedServer, method: string, value: unknown) {
    const { peer, call, body } = await server.next();
    expect((body as [string])[0]).toBe(method);
    server.send("result", { peer, call, body: encode(value) });
    return { peer, body };
  }

  test("is opened, prepared, called and closed at the peer that the server named", async () => {
    await using made = await connected();
    const { server, airlock } = made;
    const opening = airlock.open("/packs/blur");
    const asked = await answer(server, "open", { ...openedAs(31), warnings: ["w"] });
    expect(asked).toEqual({ peer: 0, body: ["open", [], { folder: "/packs/blur" }] });
    const pack = await opening;
    expect([pack.name, pack.folder, pack.warnings]).toEqual(["blur", "/packs/blur", ["w"]]);

    const preparing = pack.prepare();
    await answer(server, "prepare", { python: "/e/python", python_version: "3.12.1", fresh: false });
    expect(await preparing).toEqual({ python: "/e/python", python_version: "3.12.1", fresh: false });

    const calling = pack.call("Blur", { radius: 2 });
    expect(await answer(server, "run", Tuple.of(1.5))).toEqual({ peer: 31, body: ["run", ["Blur"], { radius: 2 }] });
    expect(await calling).toEqual(Tuple.of(1.5));

    const describing = pack.describe();
    const node = { name: "Blur", is_async: false, output_node: false, inputs: {} };
    const description = { pid: 3, python: "3.12.1", modules: { numpy: null }, nodes: [node], broken: [] };
    expect((await answer(server, "describe", description)).peer).toBe(31);
    expect(await describing).toEqual(description);

    const closing = pack.close();
    expect(await answer(server, "close", null)).toEqual({ peer: 0, body: ["close", [], { pack: 31 }] });
    await closing;
  });

  test("whose result is no value rejects that call alone", async () => {
    await using made = await connected();
    const opening = made.airlock.open("/packs/blur");
    await answer(made.server, "open", openedAs(31));
    const pack = await opening;
    const calling = pack.call("Blur");
    calling.catch(() => undefined);
    const { call } = await made.server.next();
    made.server.send("result", { peer: 31, call, body: bytesOf("d47200") });
    expect((await rejectionOf(calling)).code).toBe("value_invalid");
  });

  test("that the server describes in words unknown is refused", async () => {
    await using made = await connected();
    const opening = made.airlock.open("/packs/blur");
    opening.catch(() => undefined);
    await answer(made.server, "open", { pack: "31" });
    expect((await rejectionOf(opening)).message).toStartWith("malformed answer to open");
  });
});
