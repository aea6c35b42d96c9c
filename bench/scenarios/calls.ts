/** Scenarios of small calls, from a Python host to a Python worker. */
import type { Measurement } from "../results.ts";
import type { Goal, Scenario } from "../scenario.ts";
import {
  airlockLine,
  airlockRelay,
  contended,
  inProcess,
  socketPair,
  socketPairBytes,
  stdoutJson,
} from "./contended.ts";

const isMedianOrRate = ({ statistic }: Measurement): boolean => statistic === "p50" || statistic === "p99";

const payloads = ["int", "node's arguments"] as const;
const ofStdout = { int: 0.7, "node's arguments": 0.6 } as const;

export const calls: Scenario = contended({
  name: "calls",
  group: "per call",
  describe:
    "one call after the other, over a line and over the relay: latency, calls a second, CPU time of each process",
  rounds: 7,
  own: [airlockLine, airlockRelay, stdoutJson, socketPair, socketPairBytes, inProcess],
  where: ["free", "one core"],
  bases: ["stdout JSON", "socket pair", "pyisolate, method"],
  isShown: ({ statistic }) => statistic === "p50",
  goals: (["free", "one core"] as const).flatMap((condition) =>
    payloads.flatMap((of): Goal[] => {
      const line = { contender: airlockLine.name, condition, of, statistic: "p50" };
      return [
        { ...line, base: { contender: stdoutJson.name }, atMost: ofStdout[of] },
        { ...line, base: { contender: socketPair.name }, atMost: 1.5 },
        { ...line, contender: airlockRelay.name, base: { contender: "pyisolate, method" }, atMost: 0.35 },
      ];
    }),
  ),
});

export const callback: Scenario = contended({
  name: "callback",
  group: "per call",
  describe: "a call in which the worker asks a function of the host's",
  rounds: 3,
  own: [airlockLine, airlockRelay, inProcess],
  bases: ["airlock, line"],
  isShown: isMedianOrRate,
});

export const stream: Scenario = contended({
  name: "stream",
  group: "per call",
  describe: "a thousand items that the worker yields, one after the other",
  rounds: 3,
  own: [airlockLine, airlockRelay, stdoutJson, inProcess],
  bases: ["stdout JSON"],
});

export const inflight: Scenario = contended({
  name: "inflight",
  group: "per call",
  describe: "calls a second with 1 to 256 under way, by tasks of one event loop and by threads that each wait for one",
  rounds: 3,
  own: [airlockLine, airlockRelay],
  bases: ["airlock, line"],
  plot: "lines",
  goals: [{ contender: airlockLine.name, of: "64 tasks", statistic: "calls", atLeast: 20_000 }],
});

export const hosts: Scenario = contended({
  name: "hosts",
  group: "per call",
  describe: "calls a second of 1 to 8 hosts at once, each with a worker of its own, all of them together",
  rounds: 3,
  own: [airlockLine, airlockRelay, stdoutJson],
  bases: ["stdout JSON"],
  plot: "lines",
});

export const codecs: Scenario = contended({
  name: "codecs",
  group: "per call",
  describe: "what msgpack libraries for Python take for what calls carry, and for their import",
  rounds: 3,
  own: [],
  bases: ["msgpack"],
});
