import { describe, expect, test } from "bun:test";
import type { PackManifest } from "../../../src/server/environments/manifest.ts";
import { Pack } from "../../../src/server/pack.ts";
import type { Slot } from "../../../src/server/slot.ts";
import { AirlockError } from "../../../src/transport/errors.ts";
import { manifestOf } from "../../support/peers.ts";
import { newSession } from "../../support/sessions.ts";

/** A pack whose slots record what is asked of them. */
function newPack(workers = 1) {
  const asked: string[] = [];
  const running = new Map<number, { pid: number; manifest: PackManifest }>();
  const pack = new Pack({
    host: newSession(1),
    manifest: { ...manifestOf("blur"), workers },
    newSlot: (_, index) =>
      ({
        peer: 10 * index,
        waiting: index,
        ended: Promise.resolve(),
        get running() {
          return running.get(index);
        },
        release: () => asked.push(`release ${index}`),
        restart: async () => asked.push(`restart ${index}`),
        close: () => asked.push(`close ${index}`),
        status: () => ({ peer: 10 * index }),
      }) as unknown as Slot,
    describeLimits: (limits) =>
      Object.keys(limits).map((name) => ({ name, value: "", source: "", enforced: true, how: "" })),
    prepareEnvironment: (_, __, signal) =>
      new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
  });
  return { pack, asked, running };
}

describe("a pack", () => {
  test("has as many slots as its manifest asks for, and is known by the first", () => {
    const { pack } = newPack(3);
    expect([pack.peer, pack.peers]).toEqual([10, [10, 20, 30]]);
    expect(pack.status()).toMatchObject({ pack: 10, waiting: 6, workers: [{ peer: 10 }, { peer: 20 }, { peer: 30 }] });
  });

  test("that is opened again with more workers gets them, with fewer keeps what it has and offers less", () => {
    const { pack } = newPack(2);
    pack.reopen({ ...manifestOf("blur"), workers: 3 });
    expect(pack.peers).toEqual([10, 20, 30]);
    pack.reopen({ ...manifestOf("blur"), workers: 1 });
    expect([pack.peers, pack.slots.length]).toEqual([[10], 3]);
  });

  test("that is closed closes its slots, and gives up the making of its environment", async () => {
    const { pack, asked } = newPack(2);
    const preparing = pack.prepare(() => undefined);
    pack.close(new AirlockError("server_stopping", "bye"));
    expect(asked).toEqual(["close 1", "close 2"]);
    expect(((await preparing.catch((error) => error)) as AirlockError).code).toBe("server_stopping");
  });

  test("that is restarted restarts its slots", async () => {
    const { pack, asked } = newPack(2);
    await pack.restart();
    expect(asked).toEqual(["restart 1", "restart 2"]);
  });
});

test("a pack's status says how its limits are held, and its call_timeout follows the manifest", () => {
  const { pack } = newPack();
  expect([pack.status().limits, pack.callTimeout]).toEqual([[], undefined]);
  const limits = { call_timeout: { value: 1500, source: "s" } };
  pack.reopen({ ...manifestOf("blur"), limits });
  expect(pack.status().limits.map(({ name }) => name)).toEqual(["call_timeout"]);
  expect(pack.callTimeout).toEqual({ ms: 1500, source: "s" });
});

describe("a manifest that changed", () => {
  test("is the next worker's, and the host of the running one is told", () => {
    const { pack, running } = newPack();
    running.set(1, { pid: 100, manifest: pack.manifest });
    const changed = { ...manifestOf("blur"), dependencies: ["numpy"], warnings: ["own"] };
    pack.reopen(changed);
    expect(pack.manifest).toBe(changed);
    expect(pack.warnings).toEqual(["own", expect.stringContaining("was changed after the running worker (pid 100)")]);
    running.clear();
    expect(pack.warnings).toEqual(["own"]);
  });

  test("may have mended what its slots are held for", () => {
    const { pack, asked } = newPack();
    pack.reopen({ ...manifestOf("blur"), dependencies: ["numpy"] });
    expect(asked).toEqual(["release 1"]);
  });

  test("in nothing is no news", () => {
    const { pack, asked, running } = newPack();
    running.set(1, { pid: 100, manifest: pack.manifest });
    pack.reopen(manifestOf("blur"));
    expect([pack.warnings, asked]).toEqual([[], []]);
  });
});
