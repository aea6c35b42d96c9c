import { describe, expect, test } from "bun:test";
import { type AirlockError, errorFromWire } from "../../../src/transport/errors.ts";
import { type Frame, frameDeadlineMs } from "../../../src/transport/frame.ts";
import { type FakeLink, frame } from "../../support/peers.ts";
import { newRouter, newRouterWithPair } from "../../support/router.ts";

const callTimeout = { ms: 100, source: "limits.call_timeout in /p/pyproject.toml" };

/** The last thing that a peer was sent, which is an error. */
const errorAt = (link: FakeLink): AirlockError => errorFromWire(link.sent.at(-1)?.body);

/** A host and the worker of a pack that gives its calls 100 ms. */
function newBoundPair() {
  const made = newRouterWithPair();
  made.pack.callTimeout = callTimeout;
  const call = (deadlineMs?: number) =>
    made.router.receive(made.host.session, frame("call", made.peer, 9, ["run", [], {}], { deadlineMs }));
  return { ...made, call };
}

describe("a call over the relay to a pack with a call_timeout", () => {
  test.each([undefined, 5000])("has that time where its caller gives it %p ms, and its error says so", (deadlineMs) => {
    const { clock, host, worker, call } = newBoundPair();
    const delivered: (number | undefined)[] = [];
    const send = worker.link.send.bind(worker.link);
    worker.link.send = (sent: Frame) => {
      delivered.push(frameDeadlineMs(sent));
      send(sent);
    };
    call(deadlineMs);
    expect(delivered).toEqual([deadlineMs && 100]);
    expect(worker.link.take()[0]?.body).toEqual(["run", [], {}]);
    clock.advance(99);
    expect(host.link.take()).toEqual([]);
    clock.advance(1);
    const { message, details } = errorAt(host.link);
    expect(message).toBe(
      "pack blur: the call took longer than the pack's limit of 100 ms (limits.call_timeout in /p/pyproject.toml)",
    );
    expect(details.hint).toBe(`raise ${callTimeout.source}; a worker that goes on for 10 s more is ended`);
    expect(worker.link.take().map(({ kind }) => kind)).toEqual(["cancel"]);
    clock.advance(5000);
    expect(host.link.take()).toHaveLength(1);
  });

  test("keeps a shorter deadline of its caller's", () => {
    const { clock, host, call } = newBoundPair();
    call(50);
    clock.advance(50);
    expect(errorAt(host.link).message).toBe("pack blur: the call took longer than its deadline of 50 ms");
  });

  test("has that time from when its worker is there", () => {
    const { clock, router, join, openPack, startWorker } = newRouter();
    const host = join();
    const pack = openPack(host);
    pack.callTimeout = callTimeout;
    router.receive(host.session, frame("call", pack.peer, 9, []));
    clock.advance(10_000);
    startWorker(pack);
    clock.advance(99);
    expect(host.link.take()).toEqual([]);
    clock.advance(1);
    expect(errorAt(host.link).code).toBe("deadline_exceeded");
  });

  test("is answered in time as any other", () => {
    const { clock, router, host, worker, peer, call } = newBoundPair();
    call();
    router.receive(worker.session, frame("result", host.session.peer, worker.link.take()[0]?.call ?? 0, 42));
    clock.advance(10_000);
    expect(host.link.take()).toEqual([{ kind: "result", peer, call: 9, body: 42 }]);
  });

  test("leaves its host's answers to the worker what time they take", () => {
    const { clock, router, host, worker } = newBoundPair();
    router.receive(worker.session, frame("call", host.session.peer, 3, []));
    clock.advance(10_000);
    expect(worker.link.take()).toEqual([]);
  });
});
