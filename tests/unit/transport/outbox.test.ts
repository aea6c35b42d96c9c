import { expect, test } from "bun:test";
import fc from "fast-check";
import { Outbox, type Receipt } from "../../../src/transport/outbox.ts";
import { hexOf, joined } from "../../support/bytes.ts";
import { FakeSocket } from "../../support/fake-socket.ts";
import { Count } from "../../support/receipts.ts";

const bytesOf = (length: number, fill: number) => new Uint8Array(length).fill(fill);

/** Lengths of small frames, of such as don't share a block, and of those in between. */
const length = fc.oneof(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 8000, max: 20_000 }));
const step = fc.oneof(
  fc.record({ push: length, by: fc.nat({ max: 2 }) }),
  fc.record({ room: fc.integer({ min: 0, max: 30_000 }) }),
);

test("what is pushed leaves in order, and each sender hears of exactly its own bytes", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (history) => {
      const [outbox, socket] = [new Outbox(), new FakeSocket()];
      const senders = [new Count(), new Count(), undefined] as const;
      const pushed: Uint8Array[] = [];
      /** Whose each byte is. */
      const owners: number[] = [];
      socket.room = 0;
      for (const each of history) {
        if ("push" in each) {
          const bytes = bytesOf(each.push, pushed.length % 256);
          pushed.push(bytes.slice());
          for (let count = 0; count < each.push; count++) owners.push(each.by);
          outbox.push(bytes, senders[each.by]);
          bytes.fill(0xee);
        } else {
          socket.room = each.room;
          expect(outbox.writeTo(socket)).toBe(outbox.bytes === 0);
        }
        const left = owners.slice(0, socket.bytes.byteLength);
        expect(outbox.bytes).toBe(owners.length - left.length);
        for (const by of [0, 1]) expect(senders[by]?.bytes).toBe(left.filter((owner) => owner === by).length);
      }
      socket.room = Number.POSITIVE_INFINITY;
      outbox.writeTo(socket);
      expect(hexOf(socket.bytes)).toBe(hexOf(joined(pushed)));
    }),
  );
});

test("what is dropped has passed too, once", () => {
  const [outbox, socket] = [new Outbox(), new FakeSocket()];
  const [one, two] = [new Count(), new Count()];
  outbox.push(bytesOf(100, 1), one);
  outbox.push(bytesOf(20_000, 2), two);
  socket.room = 30;
  outbox.writeTo(socket);
  expect([one.bytes, two.bytes, outbox.bytes]).toEqual([30, 0, 20_070]);
  outbox.drop();
  outbox.drop();
  expect([one.bytes, two.bytes, outbox.bytes]).toEqual([100, 20_000, 0]);
});

test("who hears of its bytes may send more, or give all of it up", () => {
  const [outbox, socket] = [new Outbox(), new FakeSocket()];
  const heard: number[] = [];
  const again: Receipt = {
    passed: (bytes) => {
      heard.push(bytes);
      if (heard.length === 1) outbox.push(bytesOf(5, 2), again);
    },
  };
  outbox.push(bytesOf(10, 1), again);
  expect(outbox.writeTo(socket)).toBe(true);
  expect([heard, socket.bytes.byteLength]).toEqual([[10, 5], 15]);

  const last = new Count();
  outbox.push(bytesOf(10, 1), { passed: () => outbox.drop() });
  outbox.push(bytesOf(7, 1), last);
  socket.room = 4;
  outbox.writeTo(socket);
  expect([last.bytes, outbox.bytes]).toEqual([7, 0]);
});

test("a queue that never empties does not remember who sent what long ago", () => {
  const [outbox, socket] = [new Outbox(), new FakeSocket()];
  const senders = [new Count(), new Count()];
  outbox.push(bytesOf(1, 0), undefined);
  for (let turn = 0; turn < 5000; turn++) {
    outbox.push(bytesOf(3, turn), senders[turn % 2]);
    socket.room = 3;
    outbox.writeTo(socket);
  }
  expect(outbox.bytes).toBe(1);
  expect([senders[0]?.bytes, senders[1]?.bytes]).toEqual([7500, 7499]);
});

test("many small frames take little more room than their bytes", () => {
  const outbox = new Outbox();
  const before = process.memoryUsage().arrayBuffers;
  for (let count = 0; count < 100_000; count++) outbox.push(bytesOf(16, 1), undefined);
  Bun.gc(true);
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 * outbox.bytes);
});
