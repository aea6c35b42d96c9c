/** Scenarios of workers' lives. */
import type { Scenario } from "../scenario.ts";
import { airlock, contended, stdoutJson } from "./contended.ts";

export const spawn: Scenario = contended({
  name: "spawn",
  group: "life",
  describe: "to the first answer: from nothing (Airlock's server included), and of the next worker; without torch",
  rounds: 3,
  own: [airlock, stdoutJson],
  bases: ["stdout JSON"],
});

export const spawnTorch: Scenario = contended({
  name: "spawn-torch",
  group: "life",
  describe:
    "to the first answer of a worker that has imported torch, in a host that has: from nothing, and of the next worker",
  rounds: 3,
  withTorch: true,
  own: [airlock, stdoutJson],
  inSmoke: 1,
  bases: ["pyisolate"],
});

export const idle: Scenario = contended({
  name: "idle",
  group: "life",
  describe: "what an idle worker takes, and all that goes with it (PSS), before and after it imports torch",
  rounds: 3,
  withTorch: true,
  own: [airlock, stdoutJson],
  inSmoke: 1,
  bases: ["stdout JSON"],
});

export const recovery: Scenario = contended({
  name: "recovery",
  group: "life",
  describe: "from the SIGKILL of a worker to the next answer (Airlock's back-off of 0.1 s included)",
  rounds: 3,
  own: [airlock, stdoutJson],
  bases: ["stdout JSON"],
});
