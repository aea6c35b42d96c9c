import { expect, test } from "bun:test";
import { WriteBatch } from "../../../src/transport/write-batch.ts";

test("flushes each connection when the event is over, those too that are written to meanwhile", () => {
  const batch = new WriteBatch();
  const flushed: string[] = [];
  const late = { flush: () => void flushed.push("late") };
  const early = {
    flush: () => {
      flushed.push("early");
      batch.add(late);
    },
  };
  batch.begin();
  batch.add(early);
  expect([batch.isOpen, flushed]).toEqual([true, []]);
  batch.end();
  expect([batch.isOpen, flushed]).toEqual([false, ["early", "late"]]);
  batch.begin();
  batch.end();
  expect(flushed).toEqual(["early", "late"]);
});
