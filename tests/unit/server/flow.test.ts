/** Credit: what may be under way from one peer to another, and what is held for one that does not read. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { CreditWindow, ReleaseReserve } from "../../../src/server/flow.ts";
import { AirlockError } from "../../../src/transport/errors.ts";
import { type Frame, headerBytes } from "../../../src/transport/frame.ts";
import { thrownBy } from "../../support/errors.ts";
import { FakeLink, frame, payingHello, payingWorkerHello, type Sent } from "../../support/peers.ts";
import { newRouter } from "../../support/router.ts";

const KiB = 1024;

function newWindow(size: number) {
  const sender = new FakeLink();
  return { sender, window: new CreditWindow(sender, 7, size) };
}

describe("a window", () => {
  test("gives back by quarters what has passed", () => {
    const { sender, window } = newWindow(100);
    for (let count = 0; count < 10; count++) {
      window.take(10);
      window.passed(10);
    }
    expect(sender.take()).toEqual([30, 30, 30].map((call) => ({ kind: "credit", peer: 7, call, body: undefined })));
  });

  test("takes a frame while any of it is left, and none after that", () => {
    const { sender, window } = newWindow(100);
    window.take(99);
    window.take(5000);
    expect(thrownBy(() => window.take(1)).code).toBe("limit_exceeded");
    window.passed(4999);
    expect(sender.take().map(({ call }) => call)).toEqual([4999]);
    expect(thrownBy(() => window.take(1)).message).toBe(
      "a frame was sent without credit: 100 bytes are under way to peer 7, and the window is 100",
    );
    window.passed(100);
    expect(() => window.take(1)).not.toThrow();
  });

  test("never refuses a sender that keeps to the credit it was given, nor starves it", () => {
    const steps = fc.array(fc.record({ send: fc.integer({ min: 1, max: 150 }), pass: fc.nat({ max: 200 }) }));
    fc.assert(
      fc.property(steps, (history) => {
        const { sender, window } = newWindow(100);
        let [left, held] = [100, 0];
        for (const { send, pass } of history) {
          if (left > 0) {
            window.take(send);
            left -= send;
            held += send;
          }
          const passed = Math.min(pass, held);
          window.passed(passed);
          held -= passed;
          for (const { call } of sender.take()) left += call;
          expect(held).toBeLessThan(100 + 150);
          if (held === 0) expect(left).toBeGreaterThan(0);
        }
      }),
    );
  });
});

test("releases may wait up to their reserve, and one more of them", () => {
  const reserve = new ReleaseReserve(7, 100);
  reserve.take(99);
  reserve.take(50);
  expect(thrownBy(() => reserve.take(1)).code).toBe("limit_exceeded");
  reserve.passed(50);
  expect(() => reserve.take(1)).not.toThrow();
});

/** A host and a worker that keep to credit, over windows of 64 KiB. */
function newPair() {
  const made = newRouter({ creditWindowBytes: 64 * KiB, releaseBytesMax: KiB });
  return { ...made, ...made.joinPair(payingHello, payingWorkerHello) };
}

const creditOf = (sent: readonly Sent[]) =>
  sent.filter(({ kind }) => kind === "credit").reduce((sum, { call }) => sum + call, 0);

const lengthOf = (frames: readonly Frame[]) => frames.reduce((sum, { byteLength }) => sum + byteLength, 0);
const large = new Uint8Array(10 * KiB);

describe("a host that sends to a worker which does not read", () => {
  test("has at most a window and a frame held for it, and its connection closed if it sends on", () => {
    const { router, host, worker, peer } = newPair();
    worker.link.isReading = false;
    let number = 0;
    const fault = thrownBy(() => {
      for (;;) router.receive(host.session, frame("call", peer, ++number, large));
    });
    expect([fault.code, number]).toEqual(["limit_exceeded", 8]);
    expect(worker.link.heldBytes).toBeLessThan(64 * KiB + large.byteLength + 100);
    expect(creditOf(host.link.take())).toBe(0);
  });

  test("reaches its other packs as before", () => {
    const { router, host, worker, peer, openPack, startWorker } = newPair();
    worker.link.isReading = false;
    for (let number = 1; number <= 7; number++) router.receive(host.session, frame("call", peer, number, large));
    const other = openPack(host);
    const reading = startWorker(other, payingWorkerHello);
    for (let number = 100; number < 150; number++) {
      router.receive(host.session, frame("call", other.peer, number, large));
      const delivered = reading.link.take().find(({ kind }) => kind === "call");
      router.receive(reading.session, frame("result", 0, delivered?.call ?? 0, large));
    }
    expect(host.link.take().filter(({ kind }) => kind === "result")).toHaveLength(50);
  });

  test("gets its credit back when the worker reads, and when the worker is gone", () => {
    for (const how of ["reads", "is gone"]) {
      const { router, host, worker, peer } = newPair();
      worker.link.isReading = false;
      const sent = [1, 2, 3, 4, 5, 6, 7].map((number) => frame("call", peer, number, large));
      for (const each of sent) router.receive(host.session, each);
      if (how === "reads") worker.link.readOn();
      else worker.link.abort();
      // All but what is not worth a frame yet.
      expect(creditOf(host.link.take())).toBeGreaterThan(lengthOf(sent) - 16 * KiB);
    }
  });

  test("may cancel what it asked for, though it has no credit left", () => {
    const { router, host, worker, peer } = newPair();
    worker.link.isReading = false;
    for (let number = 1; number <= 7; number++) router.receive(host.session, frame("call", peer, number, large));
    for (let number = 1; number <= 7; number++) router.receive(host.session, frame("cancel", peer, number));
    expect(worker.link.take().filter(({ kind }) => kind === "cancel")).toHaveLength(7);
  });

  test("may release until the reserve is full, and has its connection closed then", () => {
    const { router, host, worker, peer } = newPair();
    worker.link.isReading = false;
    const fault = thrownBy(() => {
      for (;;) router.receive(host.session, frame("release", peer, 0, [1, 1]));
    });
    expect([fault.code, fault.details.hint]).toEqual(["limit_exceeded", "release many references by one frame"]);
    expect(worker.link.heldBytes).toBeLessThan(KiB + 100);
    expect(worker.link.sent.length).toBeGreaterThan(50);
  });
});

describe("credit of a call that is not passed on comes back", () => {
  const call = (peer: number, number: number, deadlineMs?: number) =>
    frame("call", peer, number, new Uint8Array(20 * KiB), { deadlineMs });

  test("once it is cancelled or overdue while its worker starts, and not before", () => {
    const { router, clock, host, pack, peer } = newPair();
    pack.worker = undefined;
    router.receive(host.session, call(peer, 1));
    router.receive(host.session, call(peer, 2, 50));
    expect(creditOf(host.link.take())).toBe(0);
    router.receive(host.session, frame("cancel", peer, 1));
    expect(creditOf(host.link.take())).toBe(call(peer, 1).byteLength);
    clock.advance(50);
    expect(creditOf(host.link.take())).toBe(call(peer, 2, 50).byteLength);
  });

  test("at once if it is an event, and no worker runs", () => {
    const { router, host, pack, peer } = newPair();
    pack.worker = undefined;
    const event = frame("event", peer, 0, ["e", new Uint8Array(20 * KiB)]);
    router.receive(host.session, event);
    expect(creditOf(host.link.take())).toBe(event.byteLength);
  });

  test("once its worker can't be started", () => {
    const { router, host, pack, peer } = newPair();
    pack.worker = undefined;
    router.receive(host.session, call(peer, 1));
    const [waiting] = pack.waiting;
    if (waiting === undefined) return expect.unreachable();
    router.fail(waiting.call, new AirlockError("worker_start_failed", "no"));
    expect(creditOf(host.link.take())).toBe(call(peer, 1).byteLength);
  });

  test("at once where it goes nowhere, and the call fails by name", () => {
    const { router, host, worker, peer, close, pack } = newPair();
    router.receive(worker.session, call(peer, 1));
    close(pack);
    router.receive(host.session, call(peer, 1));
    router.receive(host.session, frame("event", peer, 0, large));
    router.receive(host.session, frame("release", peer, 0, [1, 1]));
    expect(host.link.take().map(({ kind, call: bytes }) => [kind, bytes])).toEqual([
      ["credit", call(peer, 1).byteLength],
      ["error", 1],
      ["credit", frame("event", peer, 0, large).byteLength],
    ]);
    expect(worker.link.take().map(({ kind, peer: from }) => [kind, from])).toEqual([
      ["credit", peer],
      ["error", peer],
    ]);
  });
});

describe("a worker that sends to a host which does not read", () => {
  test("has at most a window and a frame held for it, in answers and calls together", () => {
    const { router, host, worker, peer } = newPair();
    for (let number = 1; number <= 4; number++) router.receive(host.session, frame("call", peer, number, number));
    const ids = worker.link.take().map(({ call }) => call);
    host.link.isReading = false;
    for (const id of ids) router.receive(worker.session, frame("result", host.session.peer, id, large));
    router.receive(worker.session, frame("event", host.session.peer, 0, ["e", large]));
    router.receive(worker.session, frame("call", host.session.peer, 1, large));
    router.receive(worker.session, frame("call", host.session.peer, 2, large));
    const fault = thrownBy(() => router.receive(worker.session, frame("call", host.session.peer, 3, large)));
    expect(fault.code).toBe("limit_exceeded");
    expect(host.link.heldBytes).toBeLessThan(64 * KiB + large.byteLength + 100);
  });

  test("and answers without credit has not answered: its caller hears when it is gone", () => {
    const { router, host, worker, peer } = newPair();
    router.receive(host.session, frame("call", peer, 9, []));
    const id = worker.link.take()[0]?.call ?? 0;
    host.link.isReading = false;
    for (let count = 0; count < 7; count++) {
      router.receive(worker.session, frame("progress", host.session.peer, id, large));
    }
    expect(thrownBy(() => router.receive(worker.session, frame("result", 0, id, 1))).code).toBe("limit_exceeded");
    router.leave(worker.session, new AirlockError("worker_died", "ended by the server"));
    expect(host.link.take().at(-1)).toMatchObject({ kind: "error", call: 9, body: "worker_died" });
  });

  test("gets the credit of answers back that nobody waits for", () => {
    const { router, host, worker, peer } = newPair();
    router.receive(host.session, frame("call", peer, 9, []));
    const id = worker.link.take()[0]?.call ?? 0;
    router.receive(host.session, frame("cancel", peer, 9));
    host.link.isReading = false;
    const late = frame("result", host.session.peer, id, new Uint8Array(50 * KiB));
    router.receive(worker.session, late);
    expect(creditOf(worker.link.take())).toBe(late.byteLength);
  });

  test("gets none for answers to the server, which take none", async () => {
    const { router, worker } = newPair();
    for (let turn = 0; turn < 10; turn++) {
      const asked = router.ask(worker.session, "idle");
      const id = worker.link.take()[0]?.call ?? 0;
      router.receive(worker.session, frame("result", 0, id, large));
      await asked;
    }
    expect(worker.link.take()).toEqual([]);
  });
});

test("peers that do not keep to credit are given none, and not refused", () => {
  const made = newRouter({ creditWindowBytes: KiB });
  const { router, host, worker, peer } = { ...made, ...made.joinPair() };
  worker.link.isReading = false;
  for (let number = 1; number <= 20; number++) router.receive(host.session, frame("call", peer, number, large));
  router.receive(host.session, frame("call", 4000, 30, large));
  worker.link.readOn();
  expect(worker.link.take()).toHaveLength(20);
  expect(creditOf(host.link.take())).toBe(0);
});

test("a frame costs its whole length, header included", () => {
  const { router, host, peer } = newPair();
  const empty = frame("event", peer, 0);
  expect(empty.byteLength).toBe(headerBytes);
  for (let count = 0; count < (64 * KiB) / headerBytes; count++) router.receive(host.session, frame("event", peer, 0));
  expect(creditOf(host.link.take())).toBe(64 * KiB);
});
