import { describe, expect, test } from "bun:test";
import type { IncomingCall } from "../../../src/client/incoming-call.ts";
import { type CallRequest, OutgoingCalls, Unsent } from "../../../src/client/outgoing-calls.ts";
import { type Outlet, takeOut, type Waiting } from "../../../src/client/outlet.ts";
import { ManualClock } from "../../../src/transport/clock.ts";
import { decode, encode } from "../../../src/transport/codec.ts";
import { AirlockError } from "../../../src/transport/errors.ts";
import { frameDeadlineMs, frameParent } from "../../../src/transport/frame.ts";
import { defaultLimits } from "../../../src/transport/limits.ts";
import { rejectionOf } from "../../support/errors.ts";
import { frame, read, settled } from "../../support/peers.ts";

/** An outlet that holds frames back while it is closed. */
class FakeOutlet implements Outlet {
  isOpen = true;
  readonly sent: Waiting[] = [];
  readonly waiting: Waiting[] = [];

  send(sent: Waiting["frame"], onLeft?: () => void): void {
    (this.isOpen ? this.sent : this.waiting).push({ frame: sent, onLeft });
    if (this.isOpen) onLeft?.();
  }

  withdraw(sent: Waiting["frame"]): boolean {
    return takeOut(this.waiting, sent);
  }

  /** What was sent since the last look: kinds and call numbers. */
  take(): [string, number][] {
    return this.sent.splice(0).map((each) => [read(each.frame).kind, read(each.frame).call]);
  }
}

function made(watches = true) {
  const clock = new ManualClock();
  const outlet = new FakeOutlet();
  const reports: string[] = [];
  const calls = new OutgoingCalls(
    outlet,
    clock,
    defaultLimits.graceMs,
    watches ? () => reports.push("overdue") : undefined,
  );
  return { clock, outlet, reports, calls };
}

const request = (more: Partial<CallRequest<unknown>> = {}): CallRequest<unknown> => ({
  peer: 5,
  body: [encode(["run", [], {}])],
  hasReferences: false,
  bytesMax: 1000,
  references: () => undefined,
  read: (body) => decode(body),
  pack: "blur",
  ...more,
});

const answer = (call: number, value: unknown) => frame("result", 5, call, value);

describe("a call that fails", () => {
  test.each([
    [{ delivered: false }, 1],
    [{ delivered: true }, 0],
    [{}, 0],
  ])("tells whether it reached nobody: %p", async (more, count) => {
    const { outlet, calls } = made();
    let returned = 0;
    const onUndelivered = (): void => {
      returned += 1;
    };
    const failing = calls.call(request({ onUndelivered }));
    const [[, number] = ["", 0]] = outlet.take();
    calls.receive(frame("error", 5, number, { code: "worker_start_failed", message: "no worker", ...more }));
    expect(await rejectionOf(failing)).toMatchObject({ code: "worker_start_failed" });
    expect(returned).toBe(count);
  });
});

describe("a call over a line", () => {
  test.each([
    [undefined, 300, 300, "the pack's limit of 300 ms (limits.call_timeout)"],
    [500, 300, 300, "the pack's limit of 300 ms (limits.call_timeout)"],
    [200, 300, 200, "its deadline of 200 ms"],
  ])("that is given %p ms, by a pack with %d, has %d", async (deadlineMs, ms, expected, reason) => {
    const { clock, outlet, calls } = made();
    const callTimeout = { ms, source: "limits.call_timeout" };
    const failed = rejectionOf(calls.call(request({ deadlineMs, callTimeout })));
    expect(outlet.sent.map((each) => frameDeadlineMs(each.frame))).toEqual([expected]);
    clock.advance(expected);
    const { code, message } = await failed;
    expect([code, message]).toEqual(["deadline_exceeded", `pack blur: the call took longer than ${reason}`]);
  });

  test("is cancelled at its deadline, and its callee reported if it doesn't answer that for ten seconds", async () => {
    const { clock, outlet, reports, calls } = made();
    const failed = rejectionOf(calls.call(request({ deadlineMs: 500 })));
    expect(frameDeadlineMs(outlet.sent[0]?.frame ?? new Uint8Array())).toBe(500);
    clock.advance(499);
    expect(outlet.take()).toEqual([["call", 1]]);
    clock.advance(1);
    const error = await failed;
    expect([error.code, error.message, error.details]).toEqual([
      "deadline_exceeded",
      "pack blur: the call took longer than its deadline of 500 ms",
      { pack: "blur", hint: "give it more time; a worker that goes on for 10 s more is ended" },
    ]);
    expect(outlet.take()).toEqual([["cancel", 1]]);
    clock.advance(9_999);
    expect(reports).toEqual([]);
    clock.advance(1);
    expect(reports).toEqual(["overdue"]);
  });

  test("that is answered in time after it was cancelled is nobody's fault", async () => {
    const { clock, outlet, reports, calls } = made();
    const controller = new AbortController();
    const call = calls.call(request({ signal: controller.signal }));
    call.catch(() => undefined);
    controller.abort(new Error("enough"));
    expect(outlet.take()).toEqual([
      ["call", 1],
      ["cancel", 1],
    ]);
    expect(calls.receive(frame("progress", 5, 1, { pack: "blur", stage: "s", message: "m" }))).toBe(false);
    expect(calls.receive(answer(1, "late"))).toBe(false);
    clock.advance(60_000);
    expect(reports).toEqual([]);
  });

  test("that was given up keeps its number until it is answered", async () => {
    const { outlet, calls } = made();
    const controller = new AbortController();
    const call = calls.call(request({ signal: controller.signal }));
    call.catch(() => undefined);
    controller.abort();
    for (let count = 0; count < 3; count++) calls.call(request()).catch(() => undefined);
    expect(outlet.take()).toEqual([
      ["call", 1],
      ["cancel", 1],
      ["call", 2],
      ["call", 3],
      ["call", 4],
    ]);
  });

  test("is nobody's to report once the line has ended", async () => {
    const { clock, reports, calls } = made();
    const failed = rejectionOf(calls.call(request({ deadlineMs: 5 })));
    clock.advance(5);
    await failed;
    calls.beginEnd(new Unsent());
    clock.advance(60_000);
    expect(reports).toEqual([]);
  });
});

test("a call over the relay is the server's to report", async () => {
  const { clock, reports, calls } = made(false);
  const failed = rejectionOf(calls.call(request({ deadlineMs: 5 })));
  clock.advance(60_000);
  await failed;
  expect(reports).toEqual([]);
});

describe("a call that has not left", () => {
  test("is taken back when it is given up, and nobody is told", async () => {
    const { clock, outlet, calls } = made();
    outlet.isOpen = false;
    const failed = rejectionOf(calls.call(request({ deadlineMs: 5 })));
    clock.advance(5);
    expect((await failed).code).toBe("deadline_exceeded");
    expect(outlet.waiting).toEqual([]);
  });

  test("is given back as the channel ends, and the others wait for the reason", async () => {
    const { outlet, calls } = made();
    const sent = calls.call(request());
    outlet.isOpen = false;
    const unsent = calls.call(request());
    const outcomes = Promise.allSettled([sent, unsent]);
    calls.beginEnd(new Unsent("the line ended"));
    expect(await unsent.catch((error: unknown) => error)).toBeInstanceOf(Unsent);
    expect(calls.size).toBe(1);
    calls.end(new AirlockError("worker_died", "killed"));
    expect((await rejectionOf(sent)).code).toBe("worker_died");
    await outcomes;
    expect(await calls.call(request()).catch((error: unknown) => error)).toBeInstanceOf(Unsent);
  });
});

describe("a call made in another one", () => {
  const within = (more: object): IncomingCall => ({ signal: new AbortController().signal, ...more }) as IncomingCall;

  test.each([
    [undefined, 300],
    [1000, 300],
    [100, 100],
  ])("with a deadline of %p has what is left of that one's", (deadlineMs, expected) => {
    const { clock, outlet, calls } = made();
    clock.advance(700);
    void calls.call(request({ deadlineMs, within: within({ deadlineAtMs: 1000 }) })).catch(() => undefined);
    expect(frameDeadlineMs(outlet.sent[0]?.frame ?? new Uint8Array())).toBe(expected);
  });

  test("names it as its parent, and ends with it", async () => {
    const { outlet, calls } = made();
    const controller = new AbortController();
    const parent = within({ number: 77, signal: controller.signal });
    const failed = rejectionOf(calls.call(request({ parent, within: parent })));
    expect(frameParent(outlet.sent[0]?.frame ?? new Uint8Array())).toBe(77);
    controller.abort(new AirlockError("cancelled", "the call was cancelled"));
    expect((await failed).code).toBe("cancelled");
    expect(outlet.take()).toEqual([
      ["call", 1],
      ["cancel", 1],
    ]);
  });
});

test("answers are read as they arrive, not when their callers come round to it", async () => {
  const { calls } = made();
  const order: string[] = [];
  const call = calls.call(request({ read: (body) => order.push(String(decode(body))) }));
  calls.receive(answer(1, "read"));
  order.push("next frame");
  await call;
  await settled();
  expect(order).toEqual(["read", "next frame"]);
});
