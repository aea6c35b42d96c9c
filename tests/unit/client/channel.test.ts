import { describe, expect, test } from "bun:test";
import { Channel, type Recipient } from "../../../src/client/channel.ts";
import { callInProgress, type IncomingCall } from "../../../src/client/incoming-call.ts";
import type { PairLeases } from "../../../src/client/memory/pair-leases.ts";
import { type Outlet, takeOut, type Waiting } from "../../../src/client/outlet.ts";
import { Pair } from "../../../src/client/pair.ts";
import { ReferenceIds } from "../../../src/client/references.ts";
import { ManualClock } from "../../../src/transport/clock.ts";
import { encode } from "../../../src/transport/codec.ts";
import { AirlockError } from "../../../src/transport/errors.ts";
import { buildFrame, type FrameFields, FrameKind } from "../../../src/transport/frame.ts";
import { defaultLimits } from "../../../src/transport/limits.ts";
import { Reference } from "../../../src/transport/references.ts";
import { rejectionOf, thrownBy } from "../../support/errors.ts";
import { codeOf, frame, read, type Sent, settled } from "../../support/peers.ts";

class FakeOutlet implements Outlet {
  isOpen = true;
  #queue: Waiting[] = [];

  send(sent: Waiting["frame"], onLeft?: () => void): void {
    this.#queue.push({ frame: sent, onLeft });
    if (this.isOpen) onLeft?.();
  }

  withdraw(sent: Waiting["frame"]): boolean {
    return !this.isOpen && takeOut(this.#queue, sent);
  }

  /** What was sent since the last look. */
  take(): Sent[] {
    return this.#queue.splice(0).map((each) => read(each.frame));
  }
}

/** A host's channel to pack 5, whose worker calls methods that the test gives. */
function made(methods: Record<string, () => unknown> = {}) {
  const clock = new ManualClock();
  const outlet = new FakeOutlet();
  const channel: Channel = new Channel({
    outlet,
    clock,
    limits: { ...defaultLimits, frameBytesMax: 1000 },
    recipientOf: (peer) => (peer === 5 ? pair : undefined),
  });
  const events: [string, unknown][] = [];
  const pair: Pair = new Pair({
    peer: 5,
    name: "blur",
    relay: channel,
    relayReferences: () => pair.references,
    clock,
    limits: { ...defaultLimits, frameBytesMax: 1000 },
    ids: new ReferenceIds(),
    methods: new Map(Object.entries(methods)),
    onEvent: (...event) => events.push(event),
  });
  const call = (method: string, more: Partial<FrameFields> = {}) =>
    channel.receive(buildFrame({ kind: FrameKind.call, peer: 5, call: 9, body: encode([method, [], {}]), ...more }));
  return { clock, outlet, channel, pair, events, call };
}

const summaries = (sent: Sent[]) =>
  sent.map((each) => [each.kind, each.peer, each.call, each.kind === "error" ? codeOf(each) : each.body]);
const theirs = { toReference: (value: object) => value as Reference };

describe("what is returned beyond what was given", () => {
  const returned = (call: number) =>
    buildFrame({
      kind: FrameKind.return,
      peer: 5,
      call,
      attachments: [{ segment: 1, page: 1, pages: 1, generation: 1 }],
    });

  /** A channel to a peer that was given nothing; what it was told of returns. */
  function given(isLine: boolean) {
    const told: boolean[] = [];
    const leases = {
      returned: (_: unknown, isServers: boolean) => {
        told.push(isServers);
        return isServers;
      },
    } as unknown as PairLeases;
    const recipient = { name: "blur", leases } as Recipient;
    const { outlet, clock } = made();
    const channel = new Channel({ outlet, clock, limits: defaultLimits, recipientOf: () => recipient, isLine });
    return { channel, told };
  }

  test("ends a line", () => {
    const { channel } = given(true);
    const error = thrownBy(() => channel.receive(returned(0)));
    expect([error.code, error.message]).toEqual(["protocol_error", "blur returned blocks that it was not given"]);
  });

  test("is passed over on the relay, which is other packs' way too", () => {
    const { channel, told } = given(false);
    channel.receive(returned(0));
    expect(told).toEqual([false]);
  });

  test("is passed over where the server returns it", () => {
    const { channel, told } = given(true);
    channel.receive(returned(1));
    expect(told).toEqual([true]);
  });
});

describe("a call that comes in", () => {
  test("is answered once, by its number", async () => {
    const { outlet, call } = made({ ask: () => "answer" });
    call("ask");
    await settled();
    expect(summaries(outlet.take())).toEqual([["result", 5, 9, "answer"]]);
  });

  test.each<[string, Partial<FrameFields>, string]>([
    ["nobody knows", {}, "bad_request"],
    ["comes from a pack that is closed", { peer: 6 }, "pack_not_open"],
    ["was made for a call that is over", { parent: 3 }, "cancelled"],
    ["makes no sense", { body: encode({ method: "ask" }) }, "bad_request"],
    ["is no value", { body: Uint8Array.of(0xc1) }, "value_invalid"],
    ["names an object that is gone", { body: encode(["ask", [new Reference(77)], {}], theirs) }, "reference_gone"],
  ])("and %s is answered with an error", async (_, more, code) => {
    const { outlet, call } = made({});
    call("ask", more);
    await settled();
    expect(summaries(outlet.take())).toEqual([["error", more.peer ?? 5, 9, code]]);
  });

  test("for a call that is over gives back what it brought", async () => {
    const { clock, outlet, call } = made();
    const body = encode(["ask", [new Reference(7, { kind: "function", type: "m:f" })], {}], theirs);
    call("ask", { parent: 3, hasReferences: true, body });
    clock.advance(10);
    expect(summaries(outlet.take())).toEqual([
      ["error", 5, 9, "cancelled"],
      ["release", 5, 0, [7, 1]],
    ]);
  });

  test("that is cancelled is answered at once, and not again when it is done", async () => {
    const gate = Promise.withResolvers<void>();
    let signal: AbortSignal | undefined;
    const ask = async () => {
      signal = callInProgress()?.signal;
      await gate.promise;
      return "late";
    };
    const { outlet, channel, call } = made({ ask });
    call("ask");
    await settled();
    channel.receive(frame("cancel", 5, 9));
    channel.receive(frame("cancel", 5, 9));
    expect(signal?.aborted).toBe(true);
    gate.resolve();
    await settled();
    expect(summaries(outlet.take())).toEqual([["error", 5, 9, "cancelled"]]);
  });

  test("ends with the call that it was made for, without being told", async () => {
    let signal: AbortSignal | undefined;
    const ask = () => {
      signal = callInProgress()?.signal;
      return new Promise(() => undefined);
    };
    const { outlet, pair, call } = made({ ask });
    const controller = new AbortController();
    const options = { signal: controller.signal };
    pair.call({ method: "run", args: [], keywords: {}, options, read: () => null }).catch(() => undefined);
    const [parent] = outlet.take();
    call("ask", { parent: parent?.call });
    await settled();
    controller.abort();
    expect(signal?.aborted).toBe(true);
    expect(summaries(outlet.take())).toEqual([
      ["cancel", 5, 1, undefined],
      ["error", 5, 9, "cancelled"],
    ]);
  });

  test("whose result is too long for a frame is answered with that", async () => {
    const { outlet, call } = made({ ask: () => "x".repeat(2000) });
    call("ask");
    await settled();
    expect(summaries(outlet.take())).toEqual([["error", 5, 9, "limit_exceeded"]]);
  });

  test("reports how it goes, and of what waits only the last", async () => {
    const gate = Promise.withResolvers<void>();
    let inside: IncomingCall | undefined;
    const ask = async () => {
      inside = callInProgress();
      await gate.promise;
    };
    const { outlet, call } = made({ ask });
    call("ask");
    await settled();
    outlet.isOpen = false;
    for (const value of [1, 2, 3]) inside?.progress({ value });
    expect(outlet.take().map(({ body }) => (body as { value: number }).value)).toEqual([3]);
    gate.resolve();
    await settled();
    inside?.progress({ value: 4 });
    expect(summaries(outlet.take())).toEqual([["result", 5, 9, null]]);
  });

  test.each([
    [200, undefined, 200],
    [undefined, 300, 300],
    [200, 300, 200],
    [400, 300, 300],
  ])("with a deadline of %p for a call with one of %p has %p", async (own, parents, expected) => {
    const deadlines: (number | undefined)[] = [];
    const { outlet, channel, pair, call } = made({ ask: () => deadlines.push(callInProgress()?.deadlineAtMs) });
    const options = parents === undefined ? {} : { deadlineMs: parents };
    pair.call({ method: "run", args: [], keywords: {}, options, read: () => null }).catch(() => undefined);
    const [parent] = outlet.take();
    call("ask", { deadlineMs: own, parent: parent?.call });
    await settled();
    expect(deadlines).toEqual([expected]);
    expect(channel.calls.size).toBe(1);
  });
});

describe("a channel", () => {
  test("passes events on, and over those that make no sense", () => {
    const { channel, events } = made();
    channel.receive(frame("event", 5, 0, ["preview", { step: 1 }]));
    channel.receive(frame("event", 5, 0, "preview"));
    channel.receive(buildFrame({ kind: FrameKind.event, peer: 5, call: 0, body: Uint8Array.of(0xc1) }));
    channel.receive(frame("event", 6, 0, ["preview", 1]));
    expect(events).toEqual([["preview", { step: 1 }]]);
  });

  test.each(["hello", "welcome", "line", "credit"] as const)("has no use for a %s", (kind) => {
    expect(thrownBy(() => made().channel.receive(frame(kind, 5, 1))).code).toBe("protocol_error");
  });

  test("that has ended settles what waits to leave, and takes no calls", async () => {
    const { outlet, channel, pair } = made();
    outlet.isOpen = false;
    const emitted = pair.emit("preview", () => 1);
    const called = pair.call({ method: "run", args: [], keywords: {}, options: {}, read: () => null });
    called.catch(() => undefined);
    const reason = new AirlockError("disconnected", "gone");
    channel.end(reason);
    await emitted;
    expect(await rejectionOf(called)).toBe(reason);
  });
});
