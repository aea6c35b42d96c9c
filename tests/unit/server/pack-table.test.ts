import { expect, test } from "bun:test";
import type { PackManifest } from "../../../src/server/environments/manifest.ts";
import type { Pack } from "../../../src/server/pack.ts";
import { PackTable } from "../../../src/server/pack-table.ts";
import type { Slot } from "../../../src/server/slot.ts";
import { AirlockError } from "../../../src/transport/errors.ts";
import { thrownBy } from "../../support/errors.ts";
import { manifestOf } from "../../support/peers.ts";
import { newSession } from "../../support/sessions.ts";

/** A table of packs whose workers end when the test says so. */
function newTable() {
  const closed: number[] = [];
  const reasons: (string | undefined)[] = [];
  const endings = new Map<number, () => void>();
  let lastPeer = 9;
  const table = new PackTable({
    packsPerHostMax: 2,
    newPack: (host, manifest) => {
      lastPeer += 1;
      const peer = lastPeer;
      const { promise: ended, resolve } = Promise.withResolvers<void>();
      endings.set(peer, resolve);
      const close = (reason?: AirlockError) => {
        closed.push(peer);
        reasons.push(reason?.code);
      };
      const slots = [{ peer }];
      const pack = { peer, slots, name: manifest.name, host, manifest, ended, close, status: () => peer };
      return Object.assign(pack, {
        reopen: (now: PackManifest) => Object.assign(pack, { manifest: now }),
      }) as unknown as Pack;
    },
  });
  const newHost = (peer: number) => newSession(peer);
  return { table, closed, reasons, end: (peer: number) => endings.get(peer)?.(), newHost };
}

test("a host finds its own packs only", () => {
  const { table, newHost } = newTable();
  const [one, two] = [newHost(1), newHost(2)];
  const pack = table.open(one, manifestOf("blur"));
  expect(table.get(one, pack.peer)).toBe(pack.slots[0] as Slot);
  expect(table.packOf(one, pack.peer)).toBe(pack);
  expect(table.find(two, pack.peer)).toBeUndefined();
  expect(thrownBy(() => table.get(two, pack.peer)).code).toBe("pack_not_open");
  expect(table.open(two, manifestOf("blur"))).not.toBe(pack);
});

test("a closed pack is not found, and opening its folder again gives a fresh one", () => {
  const { table, closed, newHost } = newTable();
  const host = newHost(1);
  const pack = table.open(host, manifestOf("blur"));
  table.close(pack);
  expect([closed, table.find(host, pack.peer)]).toEqual([[pack.peer], undefined]);
  expect(table.open(host, manifestOf("blur"))).not.toBe(pack);
});

test("opening a folder again gives the same pack, with its manifest as it is now", () => {
  const { table, newHost } = newTable();
  const host = newHost(1);
  const pack = table.open(host, manifestOf("blur"));
  const changed = { ...manifestOf("blur"), dependencies: ["numpy"] };
  expect(table.open(host, changed)).toBe(pack);
  expect(pack.manifest).toBe(changed);
});

test("every slot of a pack is found by its number, those that it gets later too", () => {
  const { table, newHost } = newTable();
  const host = newHost(1);
  const pack = table.open(host, manifestOf("blur"));
  (pack.slots as Slot[]).push({ peer: 77 } as Slot);
  expect(table.find(host, 77)).toBeUndefined();
  table.open(host, manifestOf("blur"));
  expect([table.find(host, 77), table.packOf(host, 77)]).toEqual([pack.slots[1], pack]);
  table.close(pack);
  expect([table.find(host, 77), table.find(host, pack.peer)]).toEqual([undefined, undefined]);
});

test("packs are found by their name, whoever has them open", () => {
  const { table, newHost } = newTable();
  const packs = [1, 2].map((peer) => table.open(newHost(peer), manifestOf("blur")));
  table.open(newHost(3), manifestOf("sharpen"));
  expect(table.named("blur")).toEqual(packs);
  expect(table.named("smudge")).toEqual([]);
});

test("a host that is gone has all its packs closed, and nobody else's", () => {
  const { table, closed, newHost } = newTable();
  const [one, two] = [newHost(1), newHost(2)];
  const [a, b] = [table.open(one, manifestOf("a")), table.open(one, manifestOf("b"))];
  const theirs = table.open(two, manifestOf("a"));
  table.closeAll(one);
  expect(closed).toEqual([a.peer, b.peer]);
  expect(table.status() as unknown).toEqual([theirs.peer]);
});

test("the end waits for workers of packs that were closed before", async () => {
  const { table, end, newHost, reasons } = newTable();
  const pack = table.open(newHost(1), manifestOf("blur"));
  const other = table.open(newHost(2), manifestOf("blur"));
  table.close(pack);
  let hasEnded = false;
  const ended = table.end(new AirlockError("server_stopping", "bye")).then(() => {
    hasEnded = true;
  });
  end(other.peer);
  await Bun.sleep(0);
  expect(hasEnded).toBe(false);
  end(pack.peer);
  await ended;
  expect(reasons).toEqual([undefined, "server_stopping"]);
});
