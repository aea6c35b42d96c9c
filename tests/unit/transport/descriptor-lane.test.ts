import { describe, expect, test } from "bun:test";
import { DescriptorLane } from "../../../src/transport/descriptor-lane.ts";

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
