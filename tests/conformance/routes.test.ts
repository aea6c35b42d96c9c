/** Which way a host's frames go: relay or line, and how much of the relay's window they take. */
import { describe, expect, test } from "bun:test";
import type { RemoteFunction } from "../../src/index.ts";
import { rejectionOf } from "../support/errors.ts";
import { temporaryFolders } from "../support/folders.ts";
import { collected, until } from "../support/until.ts";
import { openedAtModel, untilOnLine } from "./model-host.ts";
import { packPeer, type RelayOptions } from "./model-relay.ts";

const newFolder = temporaryFolders();

const opened = (options: RelayOptions) => openedAtModel(newFolder(), options);

describe("with a line", () => {
  test("the call that starts a worker, and what is nested in it, goes over the relay, and later ones don't", async () => {
    await using made = await opened({ line: true });
    const { relay, pack } = made;
    relay.nodes.set("Call", async ({ f }) => await (f as RemoteFunction)(() => "deep"));
    const back = async (inner: RemoteFunction) => {
      // By now there is a line; this call is still made for one that came over the relay.
      await Bun.sleep(20);
      return await inner();
    };
    expect(await pack.call("Call", { f: back })).toBe("deep");
    expect(relay.hostCalls).toBe(2);
    await untilOnLine(made);
    const before = relay.hostCalls;
    expect(await pack.call("Call", { f: back })).toBe("deep");
    expect(relay.hostCalls).toBe(before);
  });

  test("calls under way get the server's reason as the worker ends, and later ones a fresh worker", async () => {
    await using made = await opened({ line: true });
    const { relay, pack } = made;
    await untilOnLine(made);
    const begun = Promise.withResolvers<void>();
    relay.nodes.set("Wait", () => {
      begun.resolve();
      return new Promise(() => undefined);
    });
    const calls = [pack.call("Wait"), pack.call("Wait")].map(rejectionOf);
    await begun.promise;
    relay.endWorker();
    for (const error of await Promise.all(calls)) expect(error.code).toBe("worker_died");
    expect(relay.asked.filter(([method]) => method === "ending")).toEqual([["ending", { pack: 5, line: 1 }]]);
    expect(await pack.call("Echo", { value: 2 })).toBe(2);
    await untilOnLine(made);
  });

  test("a call of which nothing was sent goes to the next worker, written anew; one that was begun does not", async () => {
    await using made = await opened({ line: true, deaf: true });
    const { relay, pack } = made;
    await pack.call("Echo");
    // The line is there a moment after the first call; what is sent on it is never answered.
    await Bun.sleep(20);
    const before = relay.hostCalls;
    const begun = rejectionOf(pack.call("Echo", { value: new Uint8Array(3_000_000) }));
    const f = () => "fresh";
    const unsent = pack.call("Echo", { value: [f] });
    relay.endWorker();
    expect((await begun).code).toBe("worker_died");
    expect(await unsent).toEqual([f]);
    expect(relay.hostCalls).toBe(before + 1);
  });

  test("nobody is asked why a line ended on which nothing was under way", async () => {
    await using made = await opened({ line: true });
    const { relay, pack } = made;
    await untilOnLine(made);
    const ended = Promise.withResolvers<void>();
    pack.onWorkerEnded(() => ended.resolve());
    relay.endWorker();
    await ended.promise;
    expect(await pack.call("Echo", { value: 3 })).toBe(3);
    expect(relay.asked.map(([method]) => method)).toEqual(["open"]);
  });

  test("a line that the server wants left takes no more calls, and the server hears when those on it are over", async () => {
    await using made = await opened({ line: true });
    const { relay, pack } = made;
    await untilOnLine(made);
    const { promise: held, resolve: letGo } = Promise.withResolvers<string>();
    const begun = Promise.withResolvers<void>();
    relay.nodes.set("Wait", async ({ f }) => {
      begun.resolve();
      await held;
      // Made for a call that came over the line, and so part of what is finished there.
      return await (f as RemoteFunction)("deep");
    });
    const waiting = pack.call("Wait", { f: (word: string) => `${word} down` });
    await begun.promise;
    const before = relay.hostCalls;
    relay.tellHost("leave_line", { pack: packPeer, line: 1 });
    await until(async () => (await pack.call("Echo", { value: 1 })) === 1 && relay.hostCalls > before, "it is left");
    expect(relay.asked.map(([method]) => method)).toEqual(["open"]);
    letGo("");
    expect(await waiting).toBe("deep down");
    await until(() => relay.asked.length > 1, "the server hears of it");
    expect(relay.asked[1]).toEqual(["left_line", { pack: packPeer, line: 1 }]);
  });

  test("a line that was left is used again when the server says so", async () => {
    await using made = await opened({ line: true });
    const { relay } = made;
    await untilOnLine(made);
    relay.tellHost("leave_line", { pack: packPeer, line: 1 });
    await until(() => relay.asked.length > 1, "it is left");
    relay.tellHost("use_line", { pack: packPeer, line: 1 });
    await untilOnLine(made);
  });

  test("a worker that ends after its line was left takes none of the calls along that were made since", async () => {
    await using made = await opened({ line: true });
    const { relay, pack } = made;
    await untilOnLine(made);
    relay.tellHost("leave_line", { pack: packPeer, line: 1 });
    await until(() => relay.asked.length > 1, "it is left");
    relay.endWorker();
    const f = () => "still here";
    relay.nodes.set("Call", async ({ f }) => await (f as RemoteFunction)());
    expect(await pack.call("Call", { f })).toBe("still here");
    await untilOnLine(made);
    expect(relay.asked.filter(([method]) => method === "ending")).toEqual([]);
  });

  test("what a worker held whose line was left is let go when it ends, and nothing else", async () => {
    await using made = await opened({ line: true });
    const { relay, pack } = made;
    await untilOnLine(made);
    const held: unknown[] = [];
    relay.nodes.set("Hold", ({ f }) => held.push(f));
    const kept = await (async () => {
      const f = () => 1;
      await pack.call("Hold", { f });
      return new WeakRef(f);
    })();
    relay.tellHost("leave_line", { pack: packPeer, line: 1 });
    await until(() => relay.asked.length > 1, "it is left");
    await Bun.sleep(10);
    Bun.gc(true);
    expect(kept.deref()).toBeDefined();
    held.length = 0;
    relay.endWorker();
    await collected(() => kept.deref() === undefined, "it is let go of");
  });

  test("a pack that this host has closed says so to calls under way", async () => {
    await using made = await opened({ line: true });
    const { relay, pack } = made;
    await untilOnLine(made);
    const begun = Promise.withResolvers<void>();
    relay.nodes.set("Wait", () => {
      begun.resolve();
      return new Promise(() => undefined);
    });
    const call = rejectionOf(pack.call("Wait"));
    await begun.promise;
    await pack.close();
    relay.endWorker();
    const error = await call;
    expect([error.code, error.message]).toEqual(["cancelled", "the pack blur was closed"]);
  });

  test("closing the connection ends lines and the calls on them", async () => {
    await using made = await opened({ line: true });
    await untilOnLine(made);
    made.relay.nodes.set("Wait", () => new Promise(() => undefined));
    const call = rejectionOf(made.pack.call("Wait"));
    await made.airlock.close();
    expect((await call).message).toBe("the connection was closed by this host");
    expect((await rejectionOf(made.pack.call("Echo"))).code).toBe("disconnected");
  });
});

describe("with credit", () => {
  const window = 10_000;

  test("no more is under way to a worker than its window and a frame, however much is called", async () => {
    await using made = await opened({ line: false, window });
    const { relay, pack } = made;
    relay.holdsCredit = true;
    const answers = Array.from({ length: 20 }, (_, index) => pack.call("Echo", { value: "x".repeat(3000), index }));
    await made.airlock.status().catch(() => undefined);
    expect(relay.mostUsedBytes).toBeGreaterThan(window - 3100);
    expect(relay.mostUsedBytes).toBeLessThan(window + 3100);
    expect(relay.hostCalls).toBeLessThan(5);
    relay.holdsCredit = false;
    relay.grant();
    expect(await Promise.all(answers)).toEqual(new Array(20).fill("x".repeat(3000)));
  });

  test("a frame that is longer than the window leaves all the same", async () => {
    await using made = await opened({ line: false, window });
    const text = "x".repeat(5 * window);
    expect(await made.pack.call("Echo", { value: text })).toBe(text);
  });

  test("a call that waits for credit is taken back, and nothing of it is sent", async () => {
    await using made = await opened({ line: false, window });
    const { relay, pack } = made;
    relay.holdsCredit = true;
    const first = pack.call("Echo", { value: "x".repeat(window) });
    const controller = new AbortController();
    const second = pack.call("Echo", { value: () => 1 }, { signal: controller.signal });
    const third = rejectionOf(pack.call("Echo", {}, { deadlineMs: 20 }));
    second.catch(() => undefined);
    controller.abort();
    expect((await third).code).toBe("deadline_exceeded");
    expect(await first).toHaveLength(window);
    relay.holdsCredit = false;
    relay.grant();
    expect(await pack.call("Echo", { value: "next" })).toBe("next");
    expect(relay.hostCalls).toBe(2);
  });

  test("an answer waits for credit like a call, and a cancel does not", async () => {
    await using made = await opened({ line: false, window });
    const { relay, pack } = made;
    const cancelled = Promise.withResolvers<void>();
    relay.nodes.set("Ask", async ({ f }) => ((await (f as RemoteFunction)()) as string).length);
    relay.nodes.set("Wait", async ({ on }) => {
      await (on as RemoteFunction)();
      return new Promise(() => undefined);
    });
    const controller = new AbortController();
    const begun = Promise.withResolvers<void>();
    const wait = pack.call("Wait", { on: () => begun.resolve() }, { signal: controller.signal });
    wait.catch(() => cancelled.resolve());
    await begun.promise;
    relay.holdsCredit = true;
    const asked = pack.call("Ask", { f: () => "y".repeat(2 * window) });
    await Bun.sleep(5);
    const blocked = pack.call("Echo", { value: "behind" });
    controller.abort();
    await cancelled.promise;
    expect(await asked).toBe(2 * window);
    relay.holdsCredit = false;
    relay.grant();
    expect(await blocked).toBe("behind");
  });
});
