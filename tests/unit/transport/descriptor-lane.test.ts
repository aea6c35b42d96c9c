import { describe, expect, test } from "bun:test";
import { DescriptorLane, ReceivingLane } from "../../../src/transport/descriptor-lane.ts";
import { loadLibc, type Received } from "../../../src/transport/libc.ts";
import { thrownBy } from "../../support/errors.ts";

function newLibc(takes: (socket: number) => boolean) {
  const closed: number[] = [];
  const sent: [socket: number, bytes: number[], descriptor: number][] = [];
  return {
    closed,
    sent,
    socketPair: () => [20, 21] as const,
    sendDescriptor: (socket: number, bytes: Uint8Array, descriptor: number) => {
      if (takes(socket)) sent.push([socket, [...bytes], descriptor]);
      return takes(socket);
    },
    close: (socket: number) => void closed.push(socket),
  };
}

describe("a descriptor lane", () => {
  test("goes to the peer beside the first bytes, and then takes descriptors by number", () => {
    const libc = newLibc(() => true);
    const lane = DescriptorLane.open(libc, 5, Uint8Array.of(9, 9));
    expect(lane?.pass(0x01020304, 30)).toBe(true);
    expect(libc.sent).toEqual([
      [5, [9, 9], 21],
      [20, [4, 3, 2, 1], 30],
    ]);
    expect(libc.closed).toEqual([21]);
    lane?.close();
    lane?.close();
    expect(libc.closed).toEqual([21, 20]);
    expect(lane?.pass(1, 30)).toBe(false);
  });

  test("is none where the connection does not take it", () => {
    const libc = newLibc(() => false);
    expect(DescriptorLane.open(libc, 5, Uint8Array.of(9))).toBeUndefined();
    expect(libc.closed).toEqual([21, 20]);
  });

  test("says when the peer has not taken what came before", () => {
    const libc = newLibc((socket) => socket !== 20);
    expect(DescriptorLane.open(libc, 5, Uint8Array.of(9))?.pass(1, 30)).toBe(false);
  });
});

describe("the other end of a lane", () => {
  function receiving(received: Received | undefined, bytes = [4, 3, 2, 1]) {
    const closed: number[] = [];
    const receive = (_: number, buffer: Uint8Array) => {
      buffer.set(bytes);
      return received;
    };
    return { closed, lane: new ReceivingLane({ receive, close: (each) => void closed.push(each) }, 20) };
  }

  test("gives out the descriptor that was passed under a number", () => {
    const { lane, closed } = receiving({ count: 4, descriptor: 30, isTruncated: false });
    expect(lane.take(0x01020304)).toBe(30);
    lane.close();
    lane.close();
    expect(closed).toEqual([20]);
  });

  test.each<[string, Received | undefined, number[] | undefined, string, number[]]>([
    ["nothing is there", undefined, undefined, "protocol_error", []],
    ["the lane has ended", { count: 0, descriptor: undefined, isTruncated: false }, undefined, "protocol_error", []],
    ["another is there", { count: 4, descriptor: 30, isTruncated: false }, [5, 3, 2, 1], "protocol_error", [30]],
    ["its message is short", { count: 2, descriptor: 30, isTruncated: false }, undefined, "protocol_error", [30]],
    [
      "there is no room for it",
      { count: 4, descriptor: undefined, isTruncated: true },
      undefined,
      "limit_exceeded",
      [],
    ],
  ])("says so where %s, and leaves no descriptor", (_, received, bytes, code, expected) => {
    const { lane, closed } = receiving(received, bytes);
    expect(thrownBy(() => lane.take(0x01020304)).code as string).toBe(code);
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
    expect(lane?.pass(5, one)).toBe(true);
    const taken = receiver.take(5);
    libc.send(taken, Uint8Array.of(1, 2, 3));
    expect(libc.receive(other, new Uint8Array(8))?.count).toBe(3);
    expect(thrownBy(() => receiver.take(6)).code).toBe("protocol_error");
    for (const each of [near, far, one, other, taken]) libc.close(each);
    lane?.close();
    receiver.close();
  });
});
