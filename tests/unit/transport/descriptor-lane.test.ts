import { describe, expect, test } from "bun:test";
import { DescriptorLane, Passed, ReceivingLane } from "../../../src/transport/descriptor-lane.ts";
import { loadLibc, type Received } from "../../../src/transport/libc.ts";
import { thrownBy } from "../../support/errors.ts";

function newLibc(takes: (socket: number) => boolean, refusal: "full" | "gone" = "full") {
  const closed: number[] = [];
  const sent: [socket: number, bytes: number[], ...descriptors: number[]][] = [];
  return {
    closed,
    sent,
    socketPair: () => [20, 21] as const,
    sendDescriptors: (socket: number, bytes: Uint8Array, ...descriptors: readonly number[]) => {
      if (takes(socket)) sent.push([socket, [...bytes], ...descriptors]);
      return takes(socket) ? ("sent" as const) : refusal;
    },
    close: (socket: number) => void closed.push(socket),
  };
}

describe("a descriptor lane", () => {
  test("goes to the peer beside the first bytes, and then takes descriptors by number", () => {
    const libc = newLibc(() => true);
    const lane = DescriptorLane.open(libc, 5, Uint8Array.of(9, 9));
    expect(lane?.pass(Passed.line, 0x01020304, 30)).toBe(true);
    expect(lane?.pass(Passed.line, 1, 31, 32)).toBe(true);
    expect(libc.sent).toEqual([
      [5, [9, 9], 21],
      [20, [1, 0, 0, 0, 4, 3, 2, 1], 30],
      [20, [1, 0, 0, 0, 1, 0, 0, 0], 31, 32],
    ]);
    expect(libc.closed).toEqual([21]);
    lane?.close();
    lane?.close();
    expect(libc.closed).toEqual([21, 20]);
    expect(lane?.pass(Passed.segment, 1, 30)).toBe(false);
  });

  test("is none where the connection does not take it", () => {
    const libc = newLibc(() => false);
    expect(DescriptorLane.open(libc, 5, Uint8Array.of(9))).toBeUndefined();
    expect(libc.closed).toEqual([21, 20]);
  });

  test("says when the peer has not taken what came before", () => {
    const libc = newLibc((socket) => socket !== 20);
    const lane = DescriptorLane.open(libc, 5, Uint8Array.of(9));
    expect([lane?.pass(Passed.segment, 1, 30), lane?.isLeft]).toEqual([false, false]);
  });

  test.each([
    ["before it was let in", () => false],
    ["after it was", (socket: number) => socket !== 20],
  ])("says that the peer has ended, %s", (_, takes) => {
    const lane = DescriptorLane.open(newLibc(takes, "gone"), 5, Uint8Array.of(9));
    expect([lane?.pass(Passed.segment, 1, 30), lane?.isLeft]).toEqual([false, true]);
  });

  test("between real processes, tells a full one from one that nobody is at the end of", () => {
    const libc = loadLibc();
    const [near, far] = libc.socketPair("messages");
    let sent = libc.sendDescriptors(near, Uint8Array.of(1), 0);
    expect(sent).toBe("sent");
    while (sent === "sent") sent = libc.sendDescriptors(near, Uint8Array.of(1), 0);
    expect(sent).toBe("full");
    libc.close(far);
    expect(libc.sendDescriptors(near, Uint8Array.of(1), 0)).toBe("gone");
    libc.close(near);
  });
});

describe("the other end of a lane", () => {
  const line = [1, 0, 0, 0, 4, 3, 2, 1];
  const segment = [2, 0, 0, 0, 4, 3, 2, 1];

  /** A lane on which these messages lie. */
  function receiving(...messages: readonly (readonly [received: Received, bytes: readonly number[]])[]) {
    const closed: number[] = [];
    const waiting = [...messages];
    const receive = (_: number, buffer: Uint8Array) => {
      const [received, bytes = []] = waiting.shift() ?? [];
      buffer.set(bytes);
      return received;
    };
    return { closed, lane: new ReceivingLane({ receive, close: (each) => void closed.push(each) }, 20) };
  }
  const whole = (descriptor: number): Received => ({ count: 8, descriptor, isTruncated: false });

  test("gives out the descriptor that was passed under a number, once", () => {
    const { lane, closed } = receiving([whole(30), line]);
    expect(lane.take(Passed.line, 0x01020304)).toBe(30);
    expect(thrownBy(() => lane.take(Passed.line, 0x01020304)).code).toBe("protocol_error");
    lane.close();
    lane.close();
    expect(closed).toEqual([20]);
  });

  test("gives out lines and segments in whatever order they came, and closes those that nobody asked for", () => {
    const { lane, closed } = receiving([whole(30), segment], [whole(31), line], [whole(32), [2, 0, 0, 0, 9, 0, 0, 0]]);
    expect(lane.take(Passed.line, 0x01020304)).toBe(31);
    expect(lane.take(Passed.segment, 0x01020304)).toBe(30);
    lane.close();
    expect(closed).toEqual([32, 20]);
  });

  test("gives out lines of one number, which are of different packs, in the order in which they came", () => {
    const { lane, closed } = receiving([whole(30), line], [whole(31), line], [whole(32), line]);
    expect([1, 2].map(() => lane.take(Passed.line, 0x01020304))).toEqual([30, 31]);
    lane.close();
    expect(closed).toEqual([32, 20]);
  });

  test("closes what is not wanted any more, where it is there", () => {
    const { lane, closed } = receiving([whole(30), segment], [whole(31), segment]);
    lane.discard(Passed.segment, 1);
    expect(closed).toEqual([]);
    lane.discard(Passed.segment, 0x01020304);
    expect(closed).toEqual([30, 31]);
    expect(thrownBy(() => lane.take(Passed.segment, 0x01020304)).message).toContain("segment 16909060");
  });

  test.each<[string, Received | undefined, readonly number[], string, number[]]>([
    ["nothing is there", undefined, [], "protocol_error", []],
    ["the lane has ended", { count: 0, descriptor: undefined, isTruncated: false }, [], "protocol_error", []],
    ["another is there", whole(30), [1, 0, 0, 0, 5, 3, 2, 1], "protocol_error", []],
    ["a segment of this number is there", whole(30), segment, "protocol_error", []],
    ["its message is short", { count: 4, descriptor: 30, isTruncated: false }, line, "protocol_error", [30]],
    ["there is no room for it", { count: 8, descriptor: undefined, isTruncated: true }, line, "limit_exceeded", []],
  ])("says so where %s", (_, received, bytes, code, expected) => {
    const { lane, closed } = receiving(...(received === undefined ? [] : [[received, bytes] as const]));
    expect(thrownBy(() => lane.take(Passed.line, 0x01020304)).code as string).toBe(code);
    expect(closed).toEqual(expected);
  });

  test("is what the server's end leads to", () => {
    const libc = loadLibc();
    const [near, far] = libc.socketPair();
    const lane = DescriptorLane.open(libc, near, Uint8Array.of(7));
    const received = libc.receive(far, new Uint8Array(8));
    const receiver = new ReceivingLane(libc, received?.descriptor ?? -1);
    expect(received?.count).toBe(1);
    const [one, other] = libc.socketPair();
    expect(lane?.pass(Passed.line, 5, one)).toBe(true);
    const taken = receiver.take(Passed.line, 5);
    libc.send(taken, Uint8Array.of(1, 2, 3));
    expect(libc.receive(other, new Uint8Array(8))?.count).toBe(3);
    expect(thrownBy(() => receiver.take(Passed.line, 6)).code).toBe("protocol_error");
    for (const each of [near, far, one, other, taken]) libc.close(each);
    lane?.close();
    receiver.close();
  });
});
