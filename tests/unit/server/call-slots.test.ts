import { expect, test } from "bun:test";
import fc from "fast-check";
import { CallSlots } from "../../../src/server/call-slots.ts";
import { newCall, newSession } from "../../support/sessions.ts";

const host = newSession(1);

test("finds what a map by number would find, in any history and from any number on", () => {
  const steps = fc.array(fc.record({ removes: fc.boolean(), pick: fc.nat() }), { minLength: 1, maxLength: 200 });
  fc.assert(
    fc.property(steps, fc.integer({ min: 0, max: 0xffff_ffff }), fc.nat({ max: 1500 }), (history, lastId, first) => {
      const slots = new CallSlots(lastId);
      const model = new Map<number, ReturnType<typeof newCall>>();
      const put = () => {
        const call = newCall(host, slots.freeId(), 5);
        expect([call.id === 0, model.has(call.id)]).toEqual([false, false]);
        slots.put(call);
        model.set(call.id, call);
      };
      // Some that stay, so that numbers meet slots which are taken, and the ring has to grow.
      for (let count = 0; count < first; count++) put();
      for (const { removes, pick } of history) {
        const call = [...model.values()][pick % Math.max(model.size, 1)];
        if (!removes || call === undefined) put();
        else {
          expect([slots.remove(call), slots.remove(call)]).toEqual([true, false]);
          model.delete(call.id);
          expect(slots.find(call.id)).toBeUndefined();
        }
        expect(slots.size).toBe(model.size);
      }
      for (const [id, call] of model) expect(slots.find(id)).toBe(call);
      expect(new Set(slots.all())).toEqual(new Set(model.values()));
    }),
    { numRuns: 30 },
  );
});

test("a number that shares its slot with a call's is not that call's", () => {
  const slots = new CallSlots(0);
  const call = newCall(host, slots.freeId(), 5);
  slots.put(call);
  for (let bit = 5; bit < 32; bit++) expect(slots.find((call.id | (1 << bit)) >>> 0)).toBeUndefined();
});

test("a number whose slot is taken by one that stays is passed over", () => {
  const slots = new CallSlots(0);
  const stays = newCall(host, slots.freeId(), 5);
  slots.put(stays);
  const ids = Array.from({ length: 5000 }, () => slots.freeId());
  expect(new Set(ids).size).toBe(5000);
  expect(slots.find(stays.id)).toBe(stays);
});
