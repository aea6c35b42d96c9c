import { expect, test } from "bun:test";
import { WaitingCalls } from "../../../src/server/waiting-calls.ts";
import { frame } from "../../support/peers.ts";
import { newCall, newSession } from "../../support/sessions.ts";

const host = newSession(1);
const frameOf = (number: number) => frame("call", 2, number);
const { byteLength } = frameOf(1);

test("calls are handed out in the order in which they came, once, with what their frames were", () => {
  const waiting = new WaitingCalls(1000);
  const calls = [1, 2, 3].map((number) => newCall(host, number, 2));
  for (const call of calls) {
    const sent = frameOf(call.id);
    expect(waiting.add(call, sent)).toBe(true);
    sent.fill(0xee);
  }
  expect([waiting.count, [...waiting.calls]]).toEqual([3, calls]);
  expect([...waiting.take()]).toEqual(calls.map((call) => [call, frameOf(call.id)] as const));
  expect([waiting.count, [...waiting.take()]]).toEqual([0, []]);
});

test("no more waits than may, until some of it is handed out or forgotten", () => {
  const waiting = new WaitingCalls(2 * byteLength);
  const [first, second, third] = [1, 2, 3].map((number) => newCall(host, number, 2));
  if (!first || !second || !third) return expect.unreachable();
  expect([first, second, third].map((call) => waiting.add(call, frameOf(call.id)))).toEqual([true, true, false]);
  waiting.remove(third);
  expect(waiting.add(third, frameOf(3))).toBe(false);
  waiting.remove(first);
  expect(waiting.add(third, frameOf(3))).toBe(true);
  expect([...waiting.calls]).toEqual([second, third]);
  waiting.take();
  expect(waiting.add(first, frameOf(1))).toBe(true);
});
