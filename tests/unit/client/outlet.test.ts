import { describe, expect, test } from "bun:test";
import { CreditOutlet } from "../../../src/client/credit.ts";
import { type Outlet, StreamOutlet } from "../../../src/client/outlet.ts";
import type { Frame } from "../../../src/transport/frame.ts";
import { frame } from "../../support/peers.ts";

/** A connection that takes frames until it is told that its kernel is full. */
class FakeConnection {
  outboxBytes = 0;
  readonly sent: Frame[] = [];

  send(sent: Frame): void {
    this.sent.push(sent);
  }
}

const call = (peer: number, number: number, text = "") => frame("call", peer, number, text);

describe("a stream's outlet", () => {
  test("sends what the connection takes, and the rest in order when that takes more", () => {
    const connection = new FakeConnection();
    const outlet = new StreamOutlet(connection);
    const left: number[] = [];
    const frames = [1, 2, 3, 4].map((number) => call(5, number));
    const [first, second, third, fourth] = frames as [Frame, Frame, Frame, Frame];
    outlet.send(first, () => left.push(1));
    connection.outboxBytes = 10;
    outlet.send(second, () => left.push(2));
    outlet.send(third);
    outlet.send(fourth, () => left.push(4));
    expect(connection.sent).toEqual([first]);
    expect([outlet.withdraw(first), outlet.withdraw(third), outlet.withdraw(third)]).toEqual([false, true, false]);
    outlet.flush();
    expect(connection.sent).toEqual([first]);
    connection.outboxBytes = 0;
    outlet.flush();
    expect(connection.sent).toEqual([first, second, fourth]);
    expect(left).toEqual([1, 2, 4]);
    expect(outlet.withdraw(fourth)).toBe(false);
  });
});

describe("an outlet with credit", () => {
  function credited(windowBytes: number) {
    const connection = new FakeConnection();
    const stream = new StreamOutlet(connection);
    return { connection, stream, outlet: new CreditOutlet(stream, windowBytes) };
  }

  test("sends to a peer until its window is used up, and never waits for it with what goes to another", () => {
    const { connection, outlet } = credited(60);
    const long = call(5, 1, "x".repeat(80));
    const [waiting, other] = [call(5, 2), call(6, 3)];
    for (const each of [long, waiting, other]) outlet.send(each);
    expect(connection.sent).toEqual([long, other]);
    outlet.grant(5, long.byteLength - 60);
    expect(connection.sent).toEqual([long, other]);
    outlet.grant(5, 1);
    expect(connection.sent).toEqual([long, other, waiting]);
  });

  test("lets cancels, releases and what is for the server past", () => {
    const { connection, outlet } = credited(1);
    const [first, second] = [call(5, 1), call(5, 2)];
    const free = [frame("cancel", 5, 1), frame("release", 5, 0, [1, 1]), call(0, 3)];
    for (const each of [first, second, ...free]) outlet.send(each);
    expect(connection.sent).toEqual([first, ...free]);
  });

  test.each(["call", "result", "error", "progress", "event"] as const)("has a %s take of the window", (kind) => {
    const { connection, outlet } = credited(1);
    for (const number of [1, 2]) outlet.send(frame(kind, 5, number, "x"));
    expect(connection.sent).toHaveLength(1);
  });

  test("gives back what a frame took that is taken back", () => {
    const { connection, outlet } = credited(10);
    connection.outboxBytes = 1;
    const [first, second, third] = [call(5, 1), call(5, 2), call(5, 3)];
    for (const each of [first, second, third]) outlet.send(each);
    expect([outlet.withdraw(second), outlet.withdraw(first), outlet.withdraw(call(5, 1))]).toEqual([true, true, false]);
    connection.outboxBytes = 0;
    outlet.send(frame("cancel", 9, 9));
    expect(connection.sent.at(0)).toBe(third);
  });

  test("tells that a frame has left only once it has left the stream's queue too", () => {
    const { connection, stream, outlet } = credited(1000);
    const left: string[] = [];
    connection.outboxBytes = 1;
    (outlet satisfies Outlet).send(call(5, 1), () => left.push("left"));
    expect(left).toEqual([]);
    connection.outboxBytes = 0;
    stream.flush();
    expect(left).toEqual(["left"]);
  });
});
