import { expect, test } from "bun:test";
import { CallTable } from "../../../src/server/call-table.ts";
import type { Call } from "../../../src/server/session.ts";
import { ManualClock } from "../../../src/transport/clock.ts";
import { defaultLimits } from "../../../src/transport/limits.ts";
import { thrownBy } from "../../support/errors.ts";
import { newSession as session } from "../../support/sessions.ts";

function newTable(callsPerPeerMax = 10, lastId?: number) {
  const clock = new ManualClock();
  const overdue: Call[] = [];
  const limits = { ...defaultLimits, callsPerPeerMax };
  return { clock, overdue, table: new CallTable(limits, clock, (call) => overdue.push(call), lastId) };
}

test("numbers go round after the last one, without 0", () => {
  const { table } = newTable(10, 0xffff_fffd);
  const ids = [1, 2, 3, 4].map((number) => table.add(session(1), number, 5).id);
  expect(ids).toEqual([0xffff_fffe, 0xffff_ffff, 1, 2]);
});

test("a caller's number is its own, and free again once the call is over", () => {
  const { table } = newTable();
  const [host, other] = [session(1), session(2)];
  const call = table.add(host, 7, 5);
  expect(thrownBy(() => table.add(host, 7, 5)).code).toBe("protocol_error");
  expect(() => table.add(other, 7, 5)).not.toThrow();
  table.remove(call);
  expect(() => table.add(host, 7, 5)).not.toThrow();
});

test("call number 0 is refused", () => {
  expect(thrownBy(() => newTable().table.add(session(1), 0, 5)).code).toBe("protocol_error");
});

test("one peer's calls are limited, and no other peer's with them", () => {
  const { table } = newTable(2);
  const host = session(1);
  for (const number of [1, 2]) table.add(host, number, 5);
  expect(thrownBy(() => table.add(host, 3, 5)).code).toBe("limit_exceeded");
  expect(() => table.add(session(2), 1, 5)).not.toThrow();
});

test("calls that were given up count until their callee has answered, so cancelling does not lift the limit", () => {
  const { table } = newTable(2);
  const [host, worker] = [session(1), session(2)];
  const calls = [1, 2].map((number) => table.add(host, number, 5));
  for (const call of calls) {
    table.give(call, worker);
    table.abandon(call);
  }
  expect(thrownBy(() => table.add(host, 3, 5)).code).toBe("limit_exceeded");
  for (const call of calls) table.remove(call);
  for (const number of [3, 4]) table.abandon(table.add(host, number, 5));
  expect([host.callsInTable, table.size]).toEqual([0, 0]);
});

test("an abandoned call stays until its callee has answered, and frees its caller's number at once", () => {
  const { table } = newTable();
  const [host, worker] = [session(1), session(2)];
  const call = table.add(host, 1, 5);
  table.give(call, worker);
  table.abandon(call);
  expect([table.size, table.waitedFor, host.made.size, worker.callsOwed]).toEqual([1, 0, 0, 1]);
  const next = table.add(host, 1, 5);
  table.remove(call);
  expect(host.made.get(1)).toBe(next);
  expect([table.size, worker.callsOwed]).toEqual([1, 0]);
});

test("an abandoned call that nobody was given is gone", () => {
  const { table } = newTable();
  const host = session(1);
  table.abandon(table.add(host, 1, 5));
  expect([table.size, host.made.size]).toEqual([0, 0]);
});

test("a deadline falls due once, unless the call is over", () => {
  const { table, clock, overdue } = newTable();
  const calls = [1, 2, 3, 4].map((number) => table.add(session(1), number, 5, number * 10));
  const [first, second, third, fourth] = calls;
  if (!first || !second || !third || !fourth) return expect.unreachable();
  clock.advance(9);
  expect(overdue).toEqual([]);
  clock.advance(1);
  expect(overdue).toEqual([first]);
  table.remove(second);
  table.abandon(third);
  clock.advance(100);
  expect(overdue).toEqual([first, fourth]);
});
