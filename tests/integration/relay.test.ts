/** What the relay does for lawful peers, over real sockets: calls both ways, events, releases, credit, grace. */
import { describe, expect, test } from "bun:test";
import { features } from "../../src/transport/control.ts";
import { headerBytes } from "../../src/transport/frame.ts";
import { rejectionOf } from "../support/errors.ts";
import { bytesOf, callPuppet, codeIn, Puppets, RawHost } from "./raw-peers.ts";
import { until, useWorld } from "./support.ts";

const world = useWorld();
const MiB = 1024 * 1024;

/** A host, a pack of its, and the pack's worker, which has call 1 as its number `call`. */
async function newScene(limits: object = {}) {
  const puppets = new Puppets(world);
  const server = await world.serve({ workerVariables: puppets.variables, limits: { drainMsMax: 0, ...limits } });
  const underWay = await callPuppet(world, puppets);
  return {
    server,
    puppets,
    ...underWay,
    [Symbol.dispose]() {
      puppets[Symbol.dispose]();
      underWay.host.hangUp();
    },
  };
}

test("peers are told whom they talk to, and how much may be under way", async () => {
  using scene = await newScene({ creditWindowBytes: 12_345 });
  const { host, worker } = scene;
  expect([worker.host, host.window, worker.window]).toEqual([host.number, 12_345, 12_345]);
  expect(host.features).toEqual([features.credit]);
  const plain = await RawHost.join(world, ["teleport"]);
  expect(plain.features).toEqual([]);
  expect(plain.window).toBeUndefined();
  plain.hangUp();
});

test("calls go back and forth, each made for the one before", async () => {
  using scene = await newScene();
  const { host, pack, worker } = scene;
  let { call } = scene;
  // At each depth the peer whose turn it is names what it was asked, and the other one hears its own number for that.
  let named = 1;
  for (let depth = 1; depth <= 6; depth++) {
    const isWorkers = depth % 2 === 1;
    const [from, to] = isWorkers ? [worker, worker.host] : [host, pack];
    from.send("call", to, 1000 + depth, depth, { parent: call });
    const heard = await (isWorkers ? host : worker).hear({ kind: "call", body: depth });
    expect([heard.peer, heard.parent]).toEqual([isWorkers ? pack : host.number, named]);
    call = heard.call;
    named = 1000 + depth;
  }
});

test("an answer too late goes on to whoever must release what it holds", async () => {
  using scene = await newScene();
  const { host, pack, worker, call } = scene;
  host.send("cancel", pack, 1);
  await worker.hear({ kind: "cancel", call });
  worker.send("result", worker.host, call, ["a reference"], { hasReferences: true });
  expect(await host.hear({ kind: "result" })).toEqual({ kind: "result", peer: pack, call: 0, body: ["a reference"] });
});

test("events and releases go between a host and its worker, and the end of each worker is told", async () => {
  using scene = await newScene();
  const { host, pack, worker, puppets } = scene;
  host.send("event", pack, 0, ["hello", 1]);
  host.send("release", pack, 0, [5, 1]);
  expect([(await worker.hear({ kind: "event" })).body, (await worker.hear({ kind: "release" })).body]).toEqual([
    ["hello", 1],
    [5, 1],
  ]);
  worker.send("event", worker.host, 0, ["hello", 2]);
  worker.send("release", worker.host, 0, [6, 1]);
  expect(await host.hear({ kind: "event" })).toEqual({ kind: "event", peer: pack, call: 0, body: ["hello", 2] });
  expect((await host.hear({ kind: "release" })).body).toEqual([6, 1]);
  for (const number of [1, 2]) {
    const running = number === 1 ? worker : await puppets.next();
    running.hangUp();
    const ended = await host.hear({ kind: "event", peer: 0 });
    expect(ended.body).toEqual(["worker_ended", { pack, number }]);
    // Dropped: no worker runs.
    host.send("event", pack, 0, ["hello", 3]);
    if (number === 1) host.send("call", pack, 2, []);
  }
});

describe("a peer that is gone while calls go both ways", () => {
  test("as a worker: its host hears that its calls failed, and that those of the worker are given up", async () => {
    using scene = await newScene();
    const { host, pack, worker } = scene;
    worker.send("call", worker.host, 5, []);
    const { call } = await host.hear({ kind: "call" });
    worker.hangUp();
    await host.hear({ kind: "cancel", peer: pack, call });
    expect(codeIn(await host.hear({ kind: "error", peer: pack, call: 1 }))).toBe("worker_died");
    // It answers all the same, and that is no fault.
    host.send("result", pack, call, null);
    expect((await host.control("status", {})).kind).toBe("result");
  });

  test("as a host: its worker hears that its call failed, and is ended", async () => {
    using scene = await newScene();
    const { host, worker, call } = scene;
    worker.send("call", worker.host, 5, []);
    await host.hear({ kind: "call" });
    host.hangUp();
    await worker.hear({ kind: "cancel", call });
    expect(codeIn(await worker.hear({ kind: "error", call: 5 }))).toBe("disconnected");
    await until(() => worker.closed, "it is ended");
  });
});

test("a server that stops lets calls be made for those under way", async () => {
  using scene = await newScene({ drainMsMax: 10_000 });
  const { server, host, pack, worker, call } = scene;
  const stopped = server.stop();
  host.send("call", pack, 2, []);
  expect(codeIn(await host.hear({ kind: "error", call: 2 }))).toBe("server_stopping");
  worker.send("call", worker.host, 5, "for call 1", { parent: call });
  const nested = await host.hear({ kind: "call", parent: 1 });
  host.send("result", pack, nested.call, "done");
  await worker.hear({ kind: "result", call: 5 });
  worker.send("result", worker.host, call, "all done");
  expect((await host.hear({ kind: "result", call: 1 })).body).toBe("all done");
  await stopped;
});

describe("a worker that does not read", () => {
  const body = new Uint8Array(MiB);
  const frameBytes = headerBytes + bytesOf("call", 0, 1, body).byteLength;

  test("holds up what it is sent and nothing else, and the server holds a window and a frame of that", async () => {
    using scene = await newScene();
    const { host, pack, worker } = scene;
    worker.stopReading();
    Bun.gc(true);
    const before = process.memoryUsage().arrayBuffers;
    let [sent, left] = [0, host.window];
    const takeCredit = () => {
      for (const { kind, peer, call } of host.heard.splice(0)) if (kind === "credit" && peer === pack) left += call;
    };
    // The first megabytes lie in the sockets of the worker, which is not there to read them; the rest in the server.
    for (let pause = 0; pause < 50 && sent < 100; pause++) {
      takeCredit();
      for (; left > 0; sent++) {
        host.send("call", pack, 100 + sent, body);
        left -= frameBytes;
      }
      await Bun.sleep(2);
    }
    const inSockets = 2 * MiB;
    expect(sent * frameBytes).toBeLessThan(host.window + frameBytes + inSockets);
    Bun.gc(true);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 * (host.window + frameBytes) + inSockets);

    const other = await host.open("probe");
    for (let number = 1; number <= 10; number++) {
      host.send("call", other, 1000 + number, ["run", ["Echo"], { value: body }]);
      await host.hear({ kind: "result", peer: other, call: 1000 + number });
    }
    worker.readOn();
    for (let number = 0; number < sent; number++) await worker.hear({ kind: "call" });
    await until(() => {
      takeCredit();
      return left > (host.window * 3) / 4;
    }, "its credit is there again");
  });

  test("and does not answer what was cancelled is ended, and the other calls under way hear why", async () => {
    using scene = await newScene({ graceMs: 50 });
    const { host, pack } = scene;
    host.send("call", pack, 2, []);
    host.send("cancel", pack, 2);
    expect((await host.hear({ kind: "error", peer: pack, call: 1 })).body).toMatchObject({
      code: "worker_died",
      exit: "ended by the server: it had not answered a call 0.05 s after that was cancelled or overdue",
    });
  });
});

test("a Python worker whose node does not end when its call is overdue is ended, and the next one is fresh", async () => {
  const { server, pack } = await world.probe({ limits: { graceMs: 100, drainMsMax: 0 } });
  const { pid } = await pack.describe();
  const overdue = await rejectionOf(pack.call("SleepHoldingGil", { seconds: 600 }, { deadlineMs: 50 }));
  expect([overdue.code, overdue.details.hint]).toEqual([
    "deadline_exceeded",
    "give it more time; a worker that goes on for 0.1 s more is ended",
  ]);
  await until(() => server.status().packs[0]?.workers[0]?.pid !== pid, "the worker is ended");
  // A call that was sent before this host had read the end of the line would be told of it.
  await Bun.sleep(100);
  expect((await pack.describe()).pid).not.toBe(pid);
});

test("a worker is not ended for a line that is not there, or that is another host's", async () => {
  await world.serve({ limits: { drainMsMax: 0 } });
  const host = await RawHost.join(world);
  const pack = await host.open("probe");
  host.send("call", pack, 1, ["run", ["Sleep"], { seconds: 600 }]);
  await until(async () => workerOf(await host.control("status", {})) === "busy", "it has its worker");
  // This host takes no descriptors, so there is no line.
  expect((await host.control("overdue", { pack, line: 1 })).body).toBeNull();
  expect(codeIn(await host.control("overdue", { pack: 4000, line: 1 }))).toBe("pack_not_open");
  expect(workerOf(await host.control("status", {}))).toBe("busy");
  host.hangUp();
});

function workerOf(status: { readonly body: unknown }): string | undefined {
  const { packs: open } = status.body as { packs: { workers: { state: string }[] }[] };
  return open[0]?.workers[0]?.state;
}
