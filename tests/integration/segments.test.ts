/** Segments between real processes: who gets which, what receivers can't do, and that nothing of them is left. */
import { describe, expect, test } from "bun:test";
import {
  closeSync,
  constants,
  cpSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { loadLibc } from "../../src/transport/libc.ts";
import { type SegmentKind, segmentKinds } from "../../src/transport/segment-file.ts";
import { newBystander } from "./bystander.ts";
import { startServer } from "./processes.ts";
import { codeIn, Puppets, RawHost, type RawWorker } from "./raw-peers.ts";
import { SharingHost, sharing } from "./raw-sharers.ts";
import { packs, until, useWorld } from "./support.ts";

const world = useWorld();
const page = 4096;

/** A host that takes segments and calls a puppet, which does so too; and a bystander. */
async function newScene(options: { segments?: SegmentKind; limits?: object; worker?: readonly string[] } = {}) {
  const puppets = new Puppets(world);
  const bystander = await newBystander(world, {
    workerVariables: puppets.variables,
    limits: { drainMsMax: 0, ...options.limits },
    ...(options.segments && { segments: options.segments }),
  });
  const host = await SharingHost.enterAs(world);
  const pack = await host.open("puppet");
  host.send("call", pack, 1, []);
  const worker = await puppets.next(options.worker ?? sharing);
  const { call } = await worker.hear({ kind: "call" });
  return {
    ...{ puppets, bystander, host, pack, worker, call },
    async [Symbol.asyncDispose]() {
      host.hangUp();
      puppets[Symbol.dispose]();
      await bystander[Symbol.asyncDispose]();
    },
  };
}

/** What a process that was passed a segment reads in its second page. */
function textAt(path: string): string {
  const descriptor = openSync(path, constants.O_RDONLY);
  const buffer = new Uint8Array(64);
  readSync(descriptor, buffer, 0, buffer.byteLength, page);
  closeSync(descriptor);
  return Buffer.from(buffer).toString().replaceAll("\0", "");
}

/** Segments that this process, which the server runs in, has open. */
function segmentsOpen(): number {
  return readdirSync("/proc/self/fd").filter((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`).includes("airlock-segment");
    } catch {
      return false;
    }
  }).length;
}

function block(segment: number, page = 1, pages = 1) {
  return { attachments: [{ segment, page, pages, generation: 1 }] };
}

async function errorOf(peer: RawHost | RawWorker, method: string, parameters: object): Promise<[unknown, string]> {
  const answer = await peer.control(method, parameters);
  return [codeIn(answer), (answer.body as { message?: string } | null)?.message ?? ""];
}

describe.each(segmentKinds)("by %s", (kind) => {
  test("a segment reaches the worker that it is shared with, and its blocks go with a call and come back", async () => {
    await using scene = await newScene({ segments: kind });
    const { host, worker, pack } = scene;
    expect([host.memory, worker.memory]).toEqual(
      Array(2).fill({ sealed: kind === "memfd", bytes_max: 64 * 1024 ** 3 }),
    );
    const segment = await host.share(pack, "for the worker");
    const passed = (await worker.lane?.next()) ?? expect.unreachable();
    expect([passed.number, textAt(passed.path)]).toEqual([segment, "for the worker"]);
    host.send("call", pack, 2, ["with a block"], block(segment));
    const { call, attachments } = await worker.hear({ kind: "call" });
    expect(attachments).toEqual([[segment, 1, 1, 1]]);
    worker.send("return", worker.host, 0, undefined, block(segment));
    worker.send("result", worker.host, call, "done");
    expect((await host.hear({ kind: "return" })).attachments).toEqual([[segment, 1, 1, 1]]);
    expect((await host.hear({ kind: "result", call: 2 })).body).toBe("done");
  });

  test("a worker's segment outlives it for as long as its host keeps it, and can be shared on", async () => {
    await using scene = await newScene({ segments: kind });
    const { puppets, host, worker, pack, call } = scene;
    const { segment } = (await worker.control("make_segment", { bytes: 8 * page })).body as { segment: number };
    const own = (await worker.lane?.next()) ?? expect.unreachable();
    const descriptor = openSync(own.path, constants.O_RDWR);
    writeSync(descriptor, "from the dead", page);
    closeSync(descriptor);
    await worker.control("seal_segment", { segment });
    await worker.control("share_segment", { segment, peer: worker.host });
    worker.send("result", worker.host, call, "kept", block(segment));
    expect((await host.hear({ kind: "result", call: 1 })).attachments).toEqual([[segment, 1, 1, 1]]);
    const received = host.descriptorOf(segment);
    worker.hangUp();
    await host.hear({ kind: "event" });
    expect(textAt(`/proc/self/fd/${received}`)).toBe("from the dead");
    host.send("call", pack, 2, ["again"], block(segment));
    const next = await puppets.next(sharing);
    await next.hear({ kind: "call" });
    expect(textAt((await next.lane?.next())?.path ?? "")).toBe("from the dead");
    await host.control("drop_segment", { segment });
    expect((await next.hear({ kind: "event", peer: 0 })).body).toEqual(["segment_gone", { segment }]);
    await until(() => segmentsOpen() === 1, "the server has closed its copy");
  });

  test("what the kernel holds a receiver to, it holds a worker to that opens its copy anew", async () => {
    await using scene = await newScene({ segments: kind });
    const { host, worker, pack } = scene;
    await host.share(pack, "read only");
    const { path } = (await worker.lane?.next()) ?? expect.unreachable();
    const descriptor = openSync(path, constants.O_RDWR);
    const libc = loadLibc();
    const attempts = [
      () => writeSync(descriptor, "written", 0),
      () => ftruncateSync(descriptor, page),
      () => libc.unmap(libc.mapShared(descriptor, page), page),
    ];
    const refused = attempts.map((attempt) => {
      try {
        attempt();
        return false;
      } catch {
        return true;
      }
    });
    closeSync(descriptor);
    expect(refused).toEqual(Array(3).fill(kind === "memfd"));
  });

  test("nothing of them is left when hosts and workers end, whether they have told or not", async () => {
    await using scene = await newScene({ segments: kind });
    const { puppets, host, worker, pack } = scene;
    await host.share(pack, "of the host");
    await host.make("not sealed");
    for (let turn = 0; turn < 3; turn++) await worker.control("make_segment", { bytes: page });
    // Two of the host's, which has taken them off its lane, and those of both with the server.
    expect(segmentsOpen()).toBe(7);
    worker.hangUp();
    await host.hear({ kind: "event" });
    expect(segmentsOpen()).toBe(4);
    host.send("call", pack, 2, []);
    const next = await puppets.next(sharing);
    await next.control("make_segment", { bytes: page });
    host.hangUp();
    await until(() => segmentsOpen() === 0, "the server has closed its copies");
  });
});

test.each([
  [[], true],
  [["--segments", "memfd"], true],
  [["--segments", "shm"], false],
])("airlock serve %p tells hosts whether the kernel seals: %p", async (options, sealed) => {
  const server = await startServer(world, options);
  const host = await SharingHost.enterAs(world);
  expect(host.memory?.sealed).toBe(sealed);
  await host.leave();
  server.kill();
  await server.exited;
});

describe("a host is refused", () => {
  test("more memory than it may own, and is told how much that is", async () => {
    await using scene = await newScene({ limits: { segmentBytesMax: 4 * page } });
    const { host, worker } = scene;
    const segment = await host.make("half", { bytes: 3 * page });
    const [code, message] = await errorOf(host, "make_segment", { bytes: 2 * page });
    expect([code, message]).toEqual(["limit_exceeded", expect.stringContaining("asked for 8192 bytes and owns 12288")]);
    expect(codeIn(await worker.control("make_segment", { bytes: 5 * page }))).toBe("limit_exceeded");
    await host.control("drop_segment", { segment });
    expect((await host.control("make_segment", { bytes: 4 * page })).kind).toBe("result");
    await scene.bystander.isUndisturbed();
  });

  test.each([0, -4096, 4095, 4097, 2 ** 53, 1.5, "4096"])("%p bytes, which are no pages", async (bytes) => {
    await using scene = await newScene();
    expect((await errorOf(scene.host, "make_segment", { bytes }))[0]).toBe("bad_request");
  });

  test("segments without the feature, which it is then not told of", async () => {
    await using scene = await newScene();
    const host = await RawHost.join(world, ["segments", "credit"]);
    expect([host.features, host.memory]).toEqual([["credit"], undefined]);
    expect((await errorOf(host, "make_segment", { bytes: page }))[0]).toBe("bad_request");
    host.hangUp();
    await scene.bystander.isUndisturbed();
  });

  test("what it does not take off its lane, until it does", async () => {
    await using scene = await newScene();
    const { host, bystander } = scene;
    const made: number[] = [];
    let code: unknown;
    while (code === undefined) {
      const answer = await host.control("make_segment", { bytes: page });
      code = codeIn(answer);
      if (code === undefined) made.push((answer.body as { segment: number }).segment);
    }
    expect([code, segmentsOpen()]).toEqual(["limit_exceeded", made.length]);
    for (const segment of made) host.descriptorOf(segment);
    expect((await host.control("make_segment", { bytes: page })).kind).toBe("result");
    await bystander.isUndisturbed();
  });

  test("the seal of a segment whose size it has changed, which is gone then", async () => {
    await using scene = await newScene();
    const { host, pack } = scene;
    const segment = await host.make("shrunk");
    ftruncateSync(host.descriptorOf(segment), page);
    const [code, message] = await errorOf(host, "seal_segment", { segment });
    expect([code, message]).toEqual(["bad_request", expect.stringContaining("has 4096 bytes by now")]);
    expect((await errorOf(host, "share_segment", { segment, peer: pack }))[0]).toBe("lease_gone");
    expect(segmentsOpen()).toBe(1);
  });

  test("sharing what is not sealed, what it was not passed, and with whom it has nothing to do", async () => {
    await using scene = await newScene();
    const { host, worker, pack } = scene;
    const open = await host.make("open");
    expect((await errorOf(host, "share_segment", { segment: open, peer: pack }))[0]).toBe("bad_request");
    const { segment } = (await worker.control("make_segment", { bytes: page })).body as { segment: number };
    await worker.control("seal_segment", { segment });
    for (const method of ["share_segment", "seal_segment"]) {
      const parameters = { segment, ...(method === "share_segment" && { peer: pack }) };
      expect((await errorOf(host, method, parameters))[0]).toBe("unauthorized");
    }
    const other = await SharingHost.enterAs(world);
    const theirs = await other.open("probe");
    await host.control("seal_segment", { segment: open });
    expect((await errorOf(host, "share_segment", { segment: open, peer: theirs }))[0]).toBe("pack_not_open");
    expect((await errorOf(worker, "share_segment", { segment, peer: other.number }))[0]).toBe("unauthorized");
    await other.leave();
  });
});

/** The puppet pack once more, with memory of its own. */
async function openPrivate(host: SharingHost): Promise<{ pack: number; audience: number }> {
  const folder = join(world.folder, "private-puppet");
  cpSync(join(packs, "puppet"), folder, { recursive: true });
  const manifest = join(folder, "pyproject.toml");
  writeFileSync(manifest, `${readFileSync(manifest, "utf8")}private_memory = true\n`);
  return (await host.control("open", { folder })).body as { pack: number; audience: number };
}

test("a pack with private memory is shown none of the others', and they none of its", async () => {
  await using scene = await newScene();
  const { puppets, host, pack, worker } = scene;
  const { pack: apart, audience } = await openPrivate(host);
  expect(audience).toBe(apart);
  host.send("call", apart, 2, []);
  const loner = await puppets.next(sharing);
  const common = await host.share(pack, "for all");
  const own = await host.share(apart, "for one", { audience });
  expect((await errorOf(host, "share_segment", { segment: common, peer: apart }))[1]).toContain("which pack puppet");
  expect((await errorOf(host, "share_segment", { segment: own, peer: pack }))[0]).toBe("unauthorized");
  expect((await errorOf(host, "make_segment", { bytes: page, audience: pack }))[0]).toBe("bad_request");
  expect([(await loner.lane?.next())?.number, (await worker.lane?.next())?.number]).toEqual([own, common]);
  expect([loner.lane?.count, worker.lane?.count]).toEqual([0, 0]);
  host.send("call", apart, 3, [], block(common));
  expect(await host.refusal()).toMatchObject({ code: "protocol_error" });
});

describe("a host is shown out that", () => {
  const cases: readonly (readonly [
    what: string,
    words: string,
    named: (host: SharingHost, pack: number) => unknown,
  ])[] = [
    ["names a segment that there is not", "segment 99, which there is not", () => block(99)],
    [
      "names one that it did not share",
      "was not shared with peer",
      async (host) => {
        const segment = await host.make("kept");
        await host.control("seal_segment", { segment });
        return block(segment);
      },
    ],
    ["names one that is not sealed", "is not sealed", async (host) => block(await host.make("open"))],
    ["names pages beyond its end", "names pages 7 to 9", async (host, pack) => block(await host.share(pack, ""), 7, 2)],
    ["names no pages", "is no block", async (host, pack) => block(await host.share(pack, ""), 1, 0)],
  ];

  test.each(cases)("%s", async (_, words, named) => {
    await using scene = await newScene();
    const { host, pack, worker, bystander } = scene;
    host.send("call", pack, 2, [], (await named(host, pack)) as object);
    const refusal = await host.refusal();
    expect([refusal.code, refusal.message]).toEqual(["protocol_error", expect.stringContaining(words)]);
    expect(worker.heard.filter(({ kind }) => kind === "call")).toEqual([]);
    await bystander.isUndisturbed();
  });

  test("names one of another host's", async () => {
    await using scene = await newScene();
    const { host, pack } = scene;
    const segment = await host.share(pack, "mine");
    const thief = await SharingHost.enterAs(world);
    thief.send("call", await thief.open("probe"), 1, [], block(segment));
    expect(await thief.refusal()).toMatchObject({
      code: "protocol_error",
      message: expect.stringContaining(`segment ${segment}, which peer ${thief.number} was not passed`),
    });
    await scene.bystander.isUndisturbed();
  });
});

test("a worker that names a block that it was not passed is ended, and its host hears of nothing else", async () => {
  await using scene = await newScene();
  const { host, worker, call, bystander } = scene;
  const segment = await host.make("mine");
  await host.control("seal_segment", { segment });
  worker.send("result", worker.host, call, "stolen", block(segment));
  expect((await bystander.causeOfEnd(worker.number))?.message).toContain(`segment ${segment}, which peer`);
  expect((await host.hear({ kind: "error", call: 1 })).body).toMatchObject({ code: "worker_died" });
  await bystander.isUndisturbed();
});

test("blocks sent to a worker that takes none come back, and the call says why", async () => {
  await using scene = await newScene({ worker: ["credit"] });
  const { host, pack, worker, puppets } = scene;
  const segment = await host.make("for the next one");
  await host.control("seal_segment", { segment });
  expect((await errorOf(host, "share_segment", { segment, peer: pack }))[0]).toBe("bad_request");
  worker.hangUp();
  await host.hear({ kind: "event" });
  await host.control("share_segment", { segment, peer: pack });
  host.send("call", pack, 2, [], block(segment));
  await puppets.next(["credit"]);
  expect((await host.hear({ kind: "return", call: 1 })).attachments).toEqual([[segment, 1, 1, 1]]);
  expect((await host.hear({ kind: "error", call: 2 })).body).toMatchObject({
    code: "value_unsupported",
    delivered: false,
  });
});

test("a worker's segments are in the status, and stop the server from nothing", async () => {
  await using scene = await newScene();
  const { bystander, worker } = scene;
  for (const bytes of [page, 3 * page]) await worker.control("make_segment", { bytes });
  const puppet = bystander.server.status().packs.find(({ name }) => name === "puppet");
  expect(puppet?.workers[0]).toMatchObject({ segments: 2, segment_bytes: 4 * page });
});
