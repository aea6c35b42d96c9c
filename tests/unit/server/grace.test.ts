/** Workers that do not answer what they were told to give up. */
import { expect, test } from "bun:test";
import { AirlockError } from "../../../src/transport/errors.ts";
import { frame } from "../../support/peers.ts";
import { newRouterWithPair, withCall } from "../../support/router.ts";

const verdict = "ended by the server: it had not answered a call 10 s after that was cancelled or overdue";

test("a worker that has not answered a cancelled call within its grace is ended", () => {
  const { router, clock, host, peer, pack } = withCall();
  clock.advance(60_000);
  router.receive(host.session, frame("cancel", peer, 9));
  clock.advance(9_999);
  expect(pack.verdicts).toEqual([]);
  clock.advance(1);
  expect(pack.verdicts).toEqual([verdict]);
});

test("a worker that has not answered an overdue call within its grace is ended, as its caller was told", () => {
  const { clock, host, pack } = withCall(100);
  clock.advance(100);
  expect(host.link.sent[0]?.body).toMatchObject({
    hint: "give it more time; a worker that goes on for 10 s more is ended",
  });
  clock.advance(10_000);
  expect(pack.verdicts).toEqual([verdict]);
});

test("a worker that answers within its grace goes on", () => {
  const { router, clock, host, worker, peer, pack, id } = withCall();
  router.receive(host.session, frame("cancel", peer, 9));
  clock.advance(9_999);
  router.receive(worker.session, frame("error", host.session.peer, id, { code: "cancelled", message: "m" }));
  clock.advance(60_000);
  expect(pack.verdicts).toEqual([]);
});

test("a worker that is gone is not ended once more", () => {
  const { router, clock, host, worker, peer, pack } = withCall();
  router.receive(host.session, frame("cancel", peer, 9));
  router.leave(worker.session, new AirlockError("worker_died", "killed"));
  clock.advance(60_000);
  expect(pack.verdicts).toEqual([]);
});

test("a call that waits for its worker costs none when it is cancelled", () => {
  const { router, clock, host, peer, pack, startWorker } = newRouterWithPair();
  pack.worker = undefined;
  router.receive(host.session, frame("call", peer, 1, []));
  router.receive(host.session, frame("cancel", peer, 1));
  startWorker(pack);
  clock.advance(60_000);
  expect(pack.verdicts).toEqual([]);
});

test("the grace is a limit", () => {
  const { router, clock, host, peer, pack } = newRouterWithPair({ graceMs: 50 });
  router.receive(host.session, frame("call", peer, 1, []));
  router.receive(host.session, frame("cancel", peer, 1));
  clock.advance(50);
  expect(pack.verdicts[0]).toContain("a call 0.05 s after");
});
