/** Hosts that were let in and then break the rules: a clear error, their connection closed, nobody else disturbed. */
import { describe, expect, test } from "bun:test";
import { encode } from "../../src/transport/codec.ts";
import { features } from "../../src/transport/control.ts";
import { newBystander } from "./bystander.ts";
import { bytesOf, codeIn, Puppets, RawHost } from "./raw-peers.ts";
import { until, useWorld } from "./support.ts";

const world = useWorld();
const KiB = 1024;
const MiB = 1024 * KiB;

/** Arrays in arrays, deeper than anybody reads. */
const nestingBomb = new Uint8Array(5000).fill(0x91);

describe("a host is shown out, and the reason is told, for", () => {
  const cases: readonly (readonly [
    what: string,
    code: string,
    words: string,
    act: (host: RawHost, pack: number) => void,
  ])[] = [
    [
      "garbage in the middle of its conversation",
      "limit_exceeded",
      "over the limit",
      (host) => host.write(new Uint8Array(64).fill(0xff)),
    ],
    [
      "a call number that is under way already",
      "protocol_error",
      "call number 7 is in use already",
      (host, pack) => {
        for (const number of [7, 7]) host.send("call", pack, number, ["run", ["Sleep"], { seconds: 60 }]);
      },
    ],
    [
      "an answer to a call that nobody made",
      "protocol_error",
      "call 9 is not this peer's to answer",
      (host, pack) => host.send("result", pack, 9, null),
    ],
    [
      "progress of a call that somebody else answers",
      "protocol_error",
      "call 1 is not this peer's to answer",
      (host, pack) => host.send("progress", pack, 1, {}),
    ],
    ["an event to the server", "protocol_error", "out of place", (host) => host.send("event", 0, 0, ["hello", null])],
    [
      "a release under a call's number",
      "protocol_error",
      "out of place",
      (host, pack) => host.send("release", pack, 4, [1, 1]),
    ],
    [
      "credit, which is the server's to give",
      "protocol_error",
      "kind 11 is out of place",
      (host, pack) => host.send("credit", pack, 1000),
    ],
    [
      "a parent on a call to the server",
      "protocol_error",
      "which made no call 3",
      (host) => host.send("call", 0, 1, ["status", [], {}], { parent: 3 }),
    ],
    [
      "attachments, which were not negotiated",
      "protocol_error",
      "attachments",
      (host, pack) => {
        const bytes = bytesOf("call", pack, 1, new Uint8Array(16));
        bytes[6] = 1;
        host.write(bytes);
      },
    ],
  ];
  test.each(cases)("%s", async (_, code, words, act) => {
    await using bystander = await newBystander(world, { limits: { drainMsMax: 0 } });
    const host = await RawHost.join(world);
    act(host, await host.open("probe"));
    const refusal = await host.refusal();
    expect([refusal.code, refusal.message]).toEqual([code, expect.stringContaining(words)]);
    await bystander.isUndisturbed();
    await until(() => bystander.server.status().packs.length === 1, "its pack is closed");
  });
});

test("a parent that somebody else was given ends the host that names it", async () => {
  using puppets = new Puppets(world);
  await using bystander = await newBystander(world, { workerVariables: puppets.variables, limits: { drainMsMax: 0 } });
  const [one, two] = [await RawHost.join(world), await RawHost.join(world)];
  const pack = await one.open("puppet");
  one.send("call", pack, 1, []);
  const worker = await puppets.next();
  await worker.hear({ kind: "call" });
  worker.send("call", worker.host, 1, ["ref_call", [1], {}]);
  const { call: parent } = await one.hear({ kind: "call", peer: pack });
  const theirs = await two.open("puppet");
  two.send("call", theirs, 1, [], { parent });
  expect(await two.refusal()).toMatchObject({
    code: "protocol_error",
    message: expect.stringContaining(`call 1 names as its parent call ${parent}`),
  });
  one.send("result", pack, parent, "unharmed");
  expect((await worker.hear({ kind: "result" })).body).toBe("unharmed");
  await bystander.isUndisturbed();
});

test("a host's call numbers may go round", async () => {
  await using bystander = await newBystander(world);
  const host = await RawHost.join(world);
  const pack = await host.open("probe");
  for (const number of [0xffff_fffe, 0xffff_ffff, 1, 2])
    host.send("call", pack, number, ["run", ["Echo"], { value: 1 }]);
  for (const number of [0xffff_fffe, 0xffff_ffff, 1, 2]) await host.hear({ kind: "result", peer: pack, call: number });
  await bystander.isUndisturbed();
  host.hangUp();
});

test("a nesting bomb fails the call that holds it, to the server as to a node", async () => {
  await using bystander = await newBystander(world);
  const host = await RawHost.join(world);
  const pack = await host.open("probe");
  host.write(bytesOf("call", 0, 1, undefined, { body: nestingBomb }));
  host.write(bytesOf("call", pack, 2, undefined, { body: nestingBomb }));
  expect(codeIn(await host.hear({ kind: "error", call: 1 }))).toBe("value_invalid");
  expect(codeIn(await host.hear({ kind: "error", call: 2 }))).toBe("value_invalid");
  host.send("call", pack, 3, ["run", ["Echo"], { value: 1 }]);
  await host.hear({ kind: "result", call: 3 });
  await bystander.isUndisturbed();
  host.hangUp();
});

describe("a flood", () => {
  test.each(["cancel", "event", "release"] as const)("of tiny frames of the kind %s disturbs nobody", async (kind) => {
    await using bystander = await newBystander(world);
    const host = await RawHost.join(world, []);
    const pack = await host.open("probe");
    const many = Buffer.concat(Array.from({ length: 4096 }, () => bytesOf(kind, pack, kind === "cancel" ? 5 : 0)));
    for (let turn = 0; turn < 50; turn++) {
      host.write(many);
      if (turn % 10 === 0) await bystander.isUndisturbed();
    }
    await until(() => host.unsentBytes === 0, "the flood was taken");
    expect((await host.control("status", {})).kind).toBe("result");
    await bystander.isUndisturbed();
    host.hangUp();
  });

  test("of calls to a pack that is not its own is answered, each by name", async () => {
    await using bystander = await newBystander(world);
    const host = await RawHost.join(world, []);
    for (let number = 1; number <= 5000; number++) host.send("call", 4000, number, []);
    await host.hear({ kind: "error", call: 5000 });
    expect(new Set(host.heard.map(codeIn))).toEqual(new Set(["pack_not_open"]));
    await bystander.isUndisturbed();
    host.hangUp();
  });

  test("of calls to the server by one that does not read ends that one", async () => {
    await using bystander = await newBystander(world, { limits: { outboxBytesMax: MiB, drainMsMax: 0 } });
    const host = await RawHost.join(world);
    host.stopReading();
    // It learns of its end when it writes.
    for (let number = 1; !host.closed; number++) {
      host.send("call", 0, number, ["status", [], {}]);
      if (number % 1000 === 0) await Bun.sleep(1);
    }
    expect((await bystander.causeOfEnd(host.number))?.message).toContain("the peer does not read");
    await bystander.isUndisturbed();
  });
});

describe("a host that keeps to credit is shown out", () => {
  const limits = { creditWindowBytes: 64 * KiB, releaseBytesMax: 4 * KiB, drainMsMax: 0 };

  test("for calls beyond its window, while their worker does not read", async () => {
    using puppets = new Puppets(world);
    await using bystander = await newBystander(world, { workerVariables: puppets.variables, limits });
    const host = await RawHost.join(world);
    const pack = await host.open("puppet");
    host.send("call", pack, 1, []);
    const worker = await puppets.next();
    worker.stopReading();
    const body = encode(new Uint8Array(60 * KiB));
    for (let number = 2; !host.closed; number++) {
      host.send("call", pack, number, undefined, { body });
      await Bun.sleep(1);
    }
    const cause = await bystander.causeOfEnd(host.number);
    expect([cause?.code, cause?.message]).toEqual([
      "limit_exceeded",
      expect.stringContaining("a frame was sent without credit"),
    ]);
    await bystander.isUndisturbed();
  });

  test("for calls beyond its window, while their worker starts", async () => {
    await using bystander = await newBystander(world, { limits });
    const host = await RawHost.join(world);
    const pack = await host.open("probe");
    for (let number = 1; number <= 3; number++) host.send("call", pack, number, new Uint8Array(60 * KiB));
    expect((await host.refusal()).code).toBe("limit_exceeded");
    await bystander.isUndisturbed();
  });

  test("for releases beyond what is held of them", async () => {
    using puppets = new Puppets(world);
    await using bystander = await newBystander(world, { workerVariables: puppets.variables, limits });
    const host = await RawHost.join(world);
    const pack = await host.open("puppet");
    host.send("call", pack, 1, []);
    const worker = await puppets.next();
    worker.stopReading();
    const release = Buffer.concat(Array.from({ length: 500 }, () => bytesOf("release", pack, 0, [1, 1])));
    while (!host.closed) {
      host.write(release);
      await Bun.sleep(1);
    }
    const cause = await bystander.causeOfEnd(host.number);
    expect([cause?.code, cause?.details.hint]).toEqual(["limit_exceeded", "release many references by one frame"]);
    await bystander.isUndisturbed();
  });
});

test("a host without the feature gets no window, and its flood ends the worker that does not read, as before", async () => {
  using puppets = new Puppets(world);
  const limits = { creditWindowBytes: 64 * KiB, outboxBytesMax: MiB, drainMsMax: 0 };
  await using bystander = await newBystander(world, { workerVariables: puppets.variables, limits });
  const host = await RawHost.join(world, [features.line]);
  expect(host.window).toBeUndefined();
  const pack = await host.open("puppet");
  host.send("call", pack, 1, []);
  const worker = await puppets.next();
  worker.stopReading();
  const body = encode(new Uint8Array(60 * KiB));
  for (let number = 2; number < 60; number++) host.send("call", pack, number, undefined, { body });
  const died = await host.hear({ kind: "error", peer: pack, call: 1 });
  expect(died.body).toMatchObject({ code: "worker_died", exit: expect.stringContaining("the peer does not read") });
  await bystander.isUndisturbed();
  worker.hangUp();
  host.hangUp();
});
