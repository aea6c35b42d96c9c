/** Events and releases: frames that nothing answers. */
import { describe, expect, test } from "bun:test";
import { thrownBy } from "../../support/errors.ts";
import { frame } from "../../support/peers.ts";
import { newRouterWithPair } from "../../support/router.ts";

describe.each(["event", "release"] as const)("a frame of the kind %s", (kind) => {
  test("goes from a host to the worker that runs, and from a worker to its host", () => {
    const { router, host, worker, peer } = newRouterWithPair();
    router.receive(host.session, frame(kind, peer, 0, [7, 1]));
    router.receive(worker.session, frame(kind, host.session.peer, 0, [8, 2]));
    expect(worker.link.take()).toEqual([{ kind, peer: host.session.peer, call: 0, body: [7, 1] }]);
    expect(host.link.take()).toEqual([{ kind, peer, call: 0, body: [8, 2] }]);
  });

  test("is dropped where no worker runs, and where the pack was closed meanwhile", () => {
    const { router, host, worker, pack, peer, close } = newRouterWithPair();
    pack.worker = undefined;
    router.receive(host.session, frame(kind, peer, 0, []));
    close(pack);
    router.receive(host.session, frame(kind, peer, 0, []));
    expect([worker.link.take(), host.link.take()]).toEqual([[], []]);
  });

  test("never reaches another host's worker", () => {
    const { router, worker, peer, join } = newRouterWithPair();
    router.receive(join().session, frame(kind, peer, 0, []));
    expect(worker.link.take()).toEqual([]);
  });

  test("is out of place at a host's server, at anybody but a worker's host, and with a call's number", () => {
    const { router, host, worker, peer, join } = newRouterWithPair();
    const other = join();
    const faults = [
      () => router.receive(host.session, frame(kind, 0, 0, [])),
      () => router.receive(host.session, frame(kind, peer, 7, [])),
      () => router.receive(worker.session, frame(kind, 0, 7, [])),
      () => router.receive(worker.session, frame(kind, other.session.peer, 0, [])),
      () => router.receive(worker.session, frame(kind, peer, 0, [])),
    ];
    for (const fault of faults) expect(thrownBy(fault).code).toBe("protocol_error");
    expect([host, worker, other].map(({ link }) => link.take())).toEqual([[], [], []]);
  });
});

test("a worker's event to the server is its slot's to hear, and takes no credit", () => {
  const { router, host, worker, pack } = newRouterWithPair();
  router.receive(worker.session, frame("event", 0, 0, ["checkpoint", 1]));
  expect([pack.heard, host.link.take(), worker.link.take()]).toEqual([[["checkpoint", 1]], [], []]);
  expect(thrownBy(() => router.receive(worker.session, frame("release", 0, 0, []))).code).toBe("protocol_error");
});

test.each(["credit", "line", "welcome", "hello"] as const)("a frame of the kind %s is the server's alone", (kind) => {
  const { router, host, worker, peer } = newRouterWithPair();
  for (const { session } of [host, worker]) {
    expect(thrownBy(() => router.receive(session, frame(kind, peer, 1))).code).toBe("protocol_error");
  }
});

test("the server tells a host what it did not ask for", () => {
  const { router, host } = newRouterWithPair();
  router.notify(host.session, "worker_ended", { pack: 3, number: 1 });
  expect(host.link.take()).toEqual([
    { kind: "event", peer: 0, call: 0, body: ["worker_ended", { pack: 3, number: 1 }] },
  ]);
});
