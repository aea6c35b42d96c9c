import { describe, expect, test } from "bun:test";
import { shakeHands } from "../../../src/client/handshake.ts";
import { encode } from "../../../src/transport/codec.ts";
import type { Frame } from "../../../src/transport/frame.ts";
import type { Libc, Received } from "../../../src/transport/libc.ts";
import { defaultLimits } from "../../../src/transport/limits.ts";
import { joined } from "../../support/bytes.ts";
import { rejectionOf } from "../../support/errors.ts";
import { frame } from "../../support/peers.ts";
import { welcome } from "../../support/scripted-server.ts";

type Step = Partial<Received> & { readonly bytes?: Uint8Array };

/** A socket that says what it is told to, one step for each look; undefined where nothing has come. */
function fakeLibc(steps: readonly (Step | undefined)[], more: Partial<Libc> = {}) {
  const closed: number[] = [];
  const sent: Uint8Array[] = [];
  const script = [...steps];
  const libc = {
    streamSocket: () => 3,
    connect: () => true,
    peerCredentials: () => ({ pid: 1, uid: process.getuid?.() ?? 0, gid: 0 }),
    send: (_: number, bytes: Uint8Array) => {
      // Never all at once: whoever sends has to go on.
      const count = Math.min(bytes.byteLength, 10);
      sent.push(bytes.slice(0, count));
      return count;
    },
    receive: (_: number, buffer: Uint8Array) => {
      const step = script.shift();
      if (step === undefined) return undefined;
      buffer.set(step.bytes ?? new Uint8Array());
      return {
        count: step.bytes?.byteLength ?? 0,
        descriptor: step.descriptor,
        isTruncated: step.isTruncated ?? false,
      };
    },
    close: (descriptor: number) => void closed.push(descriptor),
    ...more,
  } as unknown as Libc;
  return { libc, closed, sent };
}

const hello: Frame = frame("hello", 0, 0, { name: "a hello of some length" });
const greeting: Frame = frame("welcome", 0, 0, welcome);
const shake = (libc: Libc) => shakeHands("/tmp/s.sock", hello, defaultLimits, libc);

describe("a handshake", () => {
  test("takes the lane, the welcome in whatever pieces, and what came behind it", async () => {
    const behind = frame("event", 0, 0, ["worker_ended", {}]);
    const all = joined([greeting, behind]);
    const steps = [
      { bytes: all.slice(0, 1), descriptor: 9 },
      undefined,
      { bytes: all.slice(1, 20) },
      { bytes: all.slice(20) },
    ];
    const { libc, closed, sent } = fakeLibc(steps);
    const welcomed = await shake(libc);
    expect(welcomed.descriptor).toBe(3);
    expect(welcomed.welcome).toEqual(welcome);
    expect(Buffer.compare(welcomed.rest, behind)).toBe(0);
    expect(Buffer.compare(joined(sent), hello)).toBe(0);
    expect(closed).toEqual([]);
    welcomed.lane?.close();
    expect(closed).toEqual([9]);
  });

  test("tries again while the listener's queue is full", async () => {
    let tries = 0;
    const { libc } = fakeLibc([{ bytes: greeting }], { connect: () => ++tries > 3 });
    await shake(libc);
    expect(tries).toBe(4);
  });

  const throwing = () => {
    throw new Error("connect failed with errno 2");
  };
  test.each<[string, readonly (Step | undefined)[], Partial<Libc>, string, number[]]>([
    ["where nobody listens", [], { connect: throwing }, "disconnected", [3]],
    ["to another user's server", [], { peerCredentials: () => ({ pid: 1, uid: 4242, gid: 0 }) }, "unauthorized", [3]],
    ["that the server cuts short", [{ bytes: greeting.slice(0, 20), descriptor: 9 }, {}], {}, "disconnected", [9, 3]],
    ["that breaks", [], { receive: throwing }, "disconnected", [3]],
    ["without room for a descriptor", [{ bytes: greeting, isTruncated: true }], {}, "limit_exceeded", [3]],
    [
      "with a frame that is no welcome",
      [{ bytes: frame("result", 0, 1, 1), descriptor: 9 }],
      {},
      "protocol_error",
      [9, 3],
    ],
    [
      "that is refused",
      [{ bytes: frame("error", 0, 0, { code: "unauthorized", message: "no" }) }],
      {},
      "unauthorized",
      [3],
    ],
    ["with a welcome of no sense", [{ bytes: frame("welcome", 0, 0, {}), descriptor: 9 }], {}, "bad_request", [9, 3]],
    ["with noise", [{ bytes: new TextEncoder().encode("HTTP/1.1 400 Bad Request") }], {}, "limit_exceeded", [3]],
  ])("%s fails, and leaves no descriptor", async (_, steps, more, code, expected) => {
    const { libc, closed } = fakeLibc(steps, more);
    expect((await rejectionOf(shake(libc))).code as string).toBe(code);
    expect(closed).toEqual(expected);
  });

  test("reads why it was refused where the hello is not even taken", async () => {
    const refusal = encode({ code: "server_stopping", message: "bye" });
    const said = frame("error", 0, 0, { code: "server_stopping", message: "bye" });
    expect(said.byteLength).toBeGreaterThan(refusal.byteLength);
    const send = () => {
      throw new Error("send failed with errno 32");
    };
    expect((await rejectionOf(shake(fakeLibc([{ bytes: said }], { send }).libc))).code).toBe("server_stopping");
  });
});
