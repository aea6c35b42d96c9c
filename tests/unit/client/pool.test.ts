/** What a host sends to which worker of a pool, and when: against a server whose every frame the test decides. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { connect } from "../../../src/client/client.ts";
import { encode } from "../../../src/transport/codec.ts";
import type { OpenResult } from "../../../src/transport/control.ts";
import { rejectionOf } from "../../support/errors.ts";
import { temporaryFolders } from "../../support/folders.ts";
import { openedAs, type Sent } from "../../support/peers.ts";
import { ScriptedServer } from "../../support/scripted-server.ts";

const newFolder = temporaryFolders();

/** A client that has opened a pack of this kind, and the server that it talks to. */
async function opened(kind: Partial<OpenResult>) {
  const server = new ScriptedServer(join(newFolder(), "server.sock"));
  const airlock = await connect({ socket: server.path });
  await server.next();
  const open = async (changed: Partial<OpenResult> = kind) => {
    const opening = airlock.open("/packs/blur");
    const { call } = await server.next();
    server.send("result", { call, body: encode({ ...openedAs(5), ...changed }) });
    return await opening;
  };
  return {
    server,
    open,
    pack: await open(),
    /** Answers a call. */
    answer: ({ peer, call }: Sent, value: unknown = null) => server.send("result", { peer, call, body: encode(value) }),
    fail: ({ peer, call }: Sent, error: object) => server.send("error", { peer, call, body: encode(error) }),
    async [Symbol.asyncDispose]() {
      server[Symbol.dispose]();
      await airlock.close();
    },
  };
}

const idempotent = { nodes: { Blur: { idempotent: true, sticky: false } } };
const died = { code: "worker_died", message: "pack blur: its worker ended", pack: "blur" };

describe("a call of an idempotent node", () => {
  test("is made once more at the same worker's place, with the same request", async () => {
    await using made = await opened({ ...idempotent, workers: [5, 6] });
    const result = made.pack.call("Blur", { radius: 2 });
    const first = await made.server.next();
    made.fail(first, died);
    const second = await made.server.next();
    expect(second).toEqual({ ...first, call: second.call });
    made.answer(second, 7);
    expect(await result).toBe(7);
  });

  test("is not made a third time", async () => {
    await using made = await opened(idempotent);
    const error = rejectionOf(made.pack.call("Blur"));
    made.fail(await made.server.next(), died);
    made.fail(await made.server.next(), { ...died, message: "again" });
    expect((await error).message).toBe("again");
  });

  test.each([
    ["another node's", "Sharpen", died],
    ["one whose worker could not be started", "Blur", { ...died, code: "worker_start_failed" }],
    ["one of a pack that is held", "Blur", { ...died, code: "pack_held" }],
    ["one that was told of another pack's death", "Blur", { ...died, pack: "sharpen" }],
  ])("is made once where it is %s", async (_, node, error) => {
    await using made = await opened(idempotent);
    const failed = rejectionOf(made.pack.call(node));
    made.fail(await made.server.next(), error);
    expect((await failed).message).toBe(error.message);
    // Whatever comes next is another call.
    const next = made.pack.call("Next");
    const sent = await made.server.next();
    expect(sent.body).toEqual(["run", ["Next"], {}]);
    made.answer(sent);
    await next;
  });
});

describe("calls that have a process each", () => {
  test("wait in order, and each for a worker that is gone", async () => {
    await using made = await opened({ workers: [5, 6], fresh_process: true });
    const { server, pack, answer } = made;
    const results = [1, 2, 3, 4].map((value) => pack.call("Blur", { value }));
    const [first, second] = [await server.next(), await server.next()];
    expect([first.peer, second.peer]).toEqual([5, 6]);
    answer(second);
    const retiring = await server.next();
    expect([retiring.peer, retiring.body]).toEqual([0, ["retire", [], { pack: 6 }]]);
    answer(retiring);
    const third = await server.next();
    expect([third.peer, third.body]).toEqual([6, ["run", ["Blur"], { value: 3 }]]);
    answer(first);
    made.fail(await server.next(), { code: "pack_not_open", message: "what ends it has no say in what comes next" });
    const fourth = await server.next();
    expect([fourth.peer, fourth.body]).toEqual([5, ["run", ["Blur"], { value: 4 }]]);
    answer(third);
    answer(fourth);
    await Promise.all(results);
  });
});

describe("a pack with several workers", () => {
  test("has events sent to those alone that run", async () => {
    await using made = await opened({ workers: [5, 6, 7] });
    const { server, pack, answer } = made;
    const results = [pack.call("Blur"), pack.call("Blur")];
    const [first, second] = [await server.next(), await server.next()];
    await pack.emit("tick", 1);
    expect([(await server.next()).peer, (await server.next()).peer]).toEqual([5, 6]);
    answer(first);
    answer(second);
    await Promise.all(results);
    server.send("event", { body: encode(["worker_ended", { pack: 5, number: 1 }]) });
    const ended = Promise.withResolvers<void>();
    pack.onWorkerEnded(() => ended.resolve());
    await ended.promise;
    await pack.emit("tick", 2);
    expect(await server.next()).toMatchObject({ kind: "event", peer: 6, body: ["tick", 2] });
  });

  test("is the same to all who open it, until its manifest says otherwise", async () => {
    const sticky = { workers: [5, 6], nodes: { Blur: { idempotent: false, sticky: true } } };
    await using made = await opened(sticky);
    const { server, pack, answer, open } = made;
    const busy = pack.call("Blur");
    const first = await server.next();
    const again = await open();
    const sent = [again.call("Blur"), again.call("Sharpen")];
    const [second, third] = [await server.next(), await server.next()];
    expect([first.peer, second.peer, third.peer]).toEqual([5, 5, 6]);
    for (const each of [first, second, third]) answer(each);
    await Promise.all([busy, ...sent]);
    const edited = await open({ ...sticky, workers: [5, 6, 7] });
    const spread = [1, 2, 3].map(() => edited.call("Sharpen"));
    const calls = [await server.next(), await server.next(), await server.next()];
    expect(calls.map(({ peer }) => peer)).toEqual([5, 6, 7]);
    for (const each of calls) answer(each);
    await Promise.all(spread);
  });
});
