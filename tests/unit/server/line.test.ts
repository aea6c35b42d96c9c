import { describe, expect, test } from "bun:test";
import { Line } from "../../../src/server/line.ts";
import type { Session } from "../../../src/server/session.ts";
import { features, type Hello } from "../../../src/transport/control.ts";
import type { DescriptorLane, Passed } from "../../../src/transport/descriptor-lane.ts";
import { type FakeLink, hostHello, workerHello } from "../../support/peers.ts";
import { newSession } from "../../support/sessions.ts";

/** A host and a worker, of which each takes the descriptors that it is passed, or none. */
function newPair(takes = { host: true, worker: true }, named: readonly ("host" | "worker")[] = [], pairs = 2) {
  const done: string[] = [];
  let made = 0;
  const libc = {
    socketPair: () => {
      made += 1;
      if (made > pairs) throw new Error("there is no room for another");
      return [10 * made, 10 * made + 1] as const;
    },
    shutDown: (socket: number) => void done.push(`shut ${socket}`),
    close: (socket: number) => void done.push(`close ${socket}`),
  };
  const naming = (hello: Hello, name: "host" | "worker") => ({
    ...hello,
    features: named.includes(name) ? [features.line, features.simplex] : [features.line],
  });
  const [host, worker] = [newSession(1, naming(hostHello, "host")), newSession(2, naming(workerHello, "worker"))];
  const laneOf = (name: "host" | "worker") =>
    ({
      pass: (what: Passed, number: number, ...descriptors: readonly number[]) => {
        if (takes[name]) done.push(`pass ${descriptors.join(" and ")} to ${name} as ${what} ${number}`);
        return takes[name];
      },
    }) as unknown as DescriptorLane;
  host.lane = laneOf("host");
  worker.lane = laneOf("worker");
  const sentTo = (session: Session) => (session.link as FakeLink).take();
  return { done, libc, host, worker, sentTo };
}

describe("a line", () => {
  test("gives each side its end before the frame that names it, and keeps a copy of the worker's", () => {
    const { done, libc, host, worker, sentTo } = newPair();
    const line = Line.join(libc, host, worker, 7, 3);
    expect(done).toEqual(["pass 11 to worker as 1 3", "pass 10 to host as 1 3", "close 10"]);
    expect(sentTo(worker)).toEqual([{ kind: "line", peer: 1, call: 3, body: undefined }]);
    expect(sentTo(host)).toEqual([{ kind: "line", peer: 7, call: 3, body: undefined }]);
    line?.end();
    expect(done.slice(3)).toEqual(["shut 11", "close 11"]);
  });

  test("is a pair for each direction where both take that, and copies of both ends of the worker's are kept", () => {
    const { done, libc, host, worker } = newPair(undefined, ["host", "worker"]);
    const line = Line.join(libc, host, worker, 7, 3);
    // 10 and 11 lead to the host, 20 and 21 from it: each is given the one that it reads first.
    expect(done).toEqual(["pass 21 and 11 to worker as 1 3", "pass 10 and 20 to host as 1 3", "close 10", "close 20"]);
    line?.end();
    expect(done.slice(4)).toEqual(["shut 21", "close 21", "shut 11", "close 11"]);
  });

  test.each(["host", "worker"] as const)("is one pair where only the %s takes two", (side) => {
    const { done, libc, host, worker } = newPair(undefined, [side]);
    Line.join(libc, host, worker, 7, 3);
    expect(done).toEqual(["pass 11 to worker as 1 3", "pass 10 to host as 1 3", "close 10"]);
  });

  test("leaves nothing open where there is no room for the second pair", () => {
    const { done, libc, host, worker } = newPair(undefined, ["host", "worker"], 1);
    expect(() => Line.join(libc, host, worker, 7, 3)).toThrow("there is no room for another");
    expect(done).toEqual(["close 10", "close 11"]);
  });

  test.each(["host", "worker"] as const)("is none where the %s takes no descriptor now", (side) => {
    const { done, libc, host, worker, sentTo } = newPair({ host: true, worker: true, [side]: false });
    expect(Line.join(libc, host, worker, 7, 3)).toBeUndefined();
    expect(done.slice(-3)).toEqual(["close 10", "shut 11", "close 11"]);
    expect([sentTo(host), sentTo(worker)]).toEqual([[], []]);
  });

  test.each(["host", "worker"] as const)("is none where the %s cannot take descriptors", (side) => {
    const pair = newPair();
    pair[side].lane = undefined;
    expect(Line.join(pair.libc, pair.host, pair.worker, 7, 3)).toBeUndefined();
    expect(pair.done).toEqual([]);
  });
});
