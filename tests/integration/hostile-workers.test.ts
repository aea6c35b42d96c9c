/** Workers that break the rules: they are ended, their host is told why, and nobody else is disturbed. */
import { describe, expect, test } from "bun:test";
import { newBystander } from "./bystander.ts";
import { bytesOf, callPuppet, codeIn, Puppets, type RawWorker } from "./raw-peers.ts";
import { until, useWorld } from "./support.ts";

const world = useWorld();
const KiB = 1024;

/** A host whose call 1 is with a puppet, as its number `call`; and a bystander. */
async function newScene() {
  const puppets = new Puppets(world);
  const limits = { creditWindowBytes: 64 * KiB, releaseBytesMax: 4 * KiB, drainMsMax: 0 };
  const bystander = await newBystander(world, { workerVariables: puppets.variables, limits });
  const underWay = await callPuppet(world, puppets);
  return {
    puppets,
    bystander,
    ...underWay,
    async [Symbol.asyncDispose]() {
      puppets[Symbol.dispose]();
      underWay.host.hangUp();
      await bystander[Symbol.asyncDispose]();
    },
  };
}

type Scene = Awaited<ReturnType<typeof newScene>>;

describe("a worker is ended, and its host told why, for", () => {
  const cases: readonly (readonly [what: string, why: string, act: (scene: Scene) => void | Promise<void>])[] = [
    ["garbage", "over the limit", ({ worker }) => worker.write(new Uint8Array(64).fill(0xff))],
    ["a frame over the limit", "a frame of 4294967295 bytes", ({ worker }) => worker.write(oversized())],
    [
      "an answer to a call that nobody made",
      "call 4000 is not this peer's to answer",
      ({ worker }) => worker.send("result", worker.host, 4000, null),
    ],
    [
      "an answer to the call of its own",
      "is not this peer's to answer",
      async ({ worker, host }) => {
        worker.send("call", worker.host, 5, []);
        worker.send("result", worker.host, (await host.hear({ kind: "call" })).call, null);
      },
    ],
    [
      "a call number that is under way already",
      "call number 5 is in use already",
      ({ worker }) => {
        for (const number of [5, 5]) worker.send("call", worker.host, number, []);
      },
    ],
    [
      "a parent that it made itself",
      "names as its parent call",
      async ({ worker, host }) => {
        worker.send("call", worker.host, 5, []);
        worker.send("call", worker.host, 6, [], { parent: (await host.hear({ kind: "call" })).call });
      },
    ],
    [
      "an event to anybody but its host",
      "out of place",
      ({ worker }) => worker.send("event", worker.number, 0, ["e", 1]),
    ],
    ["a release to the server", "out of place", ({ worker }) => worker.send("release", 0, 0, [1, 1])],
    ["credit, which is the server's to give", "kind 11 is out of place", ({ worker }) => worker.send("credit", 1, 1)],
  ];
  test.each(cases)("%s", async (_, why, act) => {
    await using scene = await newScene();
    const { bystander, host, pack, worker, puppets } = scene;
    await act(scene);
    expect((await bystander.causeOfEnd(worker.number))?.message).toContain(why);
    expect((await host.hear({ kind: "error", peer: pack, call: 1 })).body).toMatchObject({
      code: "worker_died",
      pack: "puppet",
      exit: expect.stringMatching(/^ended by the server: /),
    });
    expect((await host.hear({ kind: "event" })).body).toEqual(["worker_ended", { pack, number: 1 }]);
    host.send("call", pack, 2, "for the next one");
    expect((await (await puppets.next()).hear({ kind: "call" })).body).toBe("for the next one");
    await bystander.isUndisturbed();
  });
});

function oversized(): Uint8Array {
  const bytes = bytesOf("result", 0, 1);
  bytes.fill(0xff, 0, 4);
  return bytes;
}

test("a worker that ends in the middle of a frame has not sent it", async () => {
  await using scene = await newScene();
  const { bystander, host, pack, worker, call } = scene;
  worker.write(bytesOf("result", worker.host, call, "half of it").slice(0, 20));
  worker.hangUp();
  expect((await host.hear({ kind: "error", peer: pack, call: 1 })).body).toMatchObject({
    code: "worker_died",
    exit: expect.stringContaining("exit code 0"),
  });
  await bystander.isUndisturbed();
});

test("a worker that is heard one byte at a time is heard", async () => {
  await using scene = await newScene();
  const { host, pack, worker, call, bystander } = scene;
  for (const byte of bytesOf("result", worker.host, call, ["slow"])) {
    worker.write(Uint8Array.of(byte));
    await Bun.sleep(0);
  }
  expect((await host.hear({ kind: "result", peer: pack, call: 1 })).body).toEqual(["slow"]);
  await bystander.isUndisturbed();
});

test("a worker reaches nobody but its host: neither another host, nor another's pack, nor the server", async () => {
  await using scene = await newScene();
  const { host, pack, worker, call, bystander } = scene;
  const others = Array.from({ length: 12 }, (_, peer) => peer).filter((peer) => peer !== worker.host);
  for (const peer of others) worker.send("call", peer, 100 + peer, ["open", [], { folder: "/" }]);
  for (const peer of others) {
    expect(codeIn(await worker.hear({ kind: "error", peer, call: 100 + peer }))).toBe("unauthorized");
  }
  worker.send("result", worker.host, call, "sound");
  expect((await host.hear({ kind: "result", peer: pack, call: 1 })).body).toBe("sound");
  expect(host.heard.map(({ kind }) => kind)).not.toContain("call");
  await bystander.isUndisturbed();
});

test("a worker that answers with a nesting bomb has answered: its host alone decodes it", async () => {
  await using scene = await newScene();
  const { worker, call, bystander, host, pack } = scene;
  const bomb = new Uint8Array(5000).fill(0x91);
  // Not decoded here, which would fail like anywhere.
  host.stopReading();
  worker.write(bytesOf("result", worker.host, call, undefined, { body: bomb }));
  await bystander.isUndisturbed();
  const slot = () => bystander.server.status().packs.find((each) => each.pack === pack)?.workers[0];
  // The bystander's calls go over a line, and may be faster than what the server reads of the worker.
  await until(() => slot()?.calls === 0, "the server has its answer");
});

describe("a host that does not read, and what its worker sends meanwhile", () => {
  const large = new Uint8Array(16 * KiB);

  test.each([
    ["events", "event", (worker: RawWorker) => worker.send("event", worker.host, 0, ["e", large])],
    ["progress", "progress", (worker: RawWorker, call: number) => worker.send("progress", worker.host, call, large)],
    [
      "calls",
      "call",
      (worker: RawWorker, _: number, turn: number) => worker.send("call", worker.host, turn + 1, large),
    ],
    ["releases", "release", (worker: RawWorker) => worker.send("release", worker.host, 0, [1, 1])],
  ])("%s: the worker is ended that sends without credit, and the host goes on", async (_, kind, send) => {
    await using scene = await newScene();
    const { bystander, host, pack, worker, call } = scene;
    host.stopReading();
    for (let turn = 0; !worker.closed; turn++) {
      send(worker, call, turn);
      if (turn % 50 === 0) await Bun.sleep(1);
    }
    const cause = await bystander.causeOfEnd(worker.number);
    expect(cause?.code).toBe("limit_exceeded");
    expect(cause?.message).toContain(kind === "release" ? "bytes of releases wait" : "a frame was sent without credit");
    host.readOn();
    expect(codeIn(await host.hear({ kind: "error", peer: pack, call: 1 }))).toBe("worker_died");
    expect((await host.control("status", {})).kind).toBe("result");
    await bystander.isUndisturbed();
  });
});
