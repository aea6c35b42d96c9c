import { expect, spyOn, test } from "bun:test";
import { guardedListener, type ServerEvent } from "../../../src/server/events.ts";

test("a listener that throws is warned of, and harms nobody", () => {
  using warn = spyOn(process, "emitWarning").mockImplementation(() => undefined);
  const event: ServerEvent = { type: "worker_started", pack: "p", pid: 1, startMs: 2 };
  const heard: ServerEvent[] = [];
  const listener = guardedListener((told) => {
    heard.push(told);
    throw new Error("a fault of the embedder's");
  });
  expect(() => listener(event)).not.toThrow();
  expect(heard).toEqual([event]);
  expect(String(warn.mock.calls[0]?.[0])).toMatch(/worker_started: Error: a fault of the embedder's/);
});
