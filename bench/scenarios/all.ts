/** All scenarios, in the order in which they run. */
import type { Scenario } from "../scenario.ts";
import { callback, calls, codecs, hosts, inflight, stream } from "./calls.ts";
import { dropIn } from "./drop-in.ts";
import { environments } from "./environments.ts";
import { firstCall } from "./first-call.ts";
import { gpu } from "./gpu.ts";
import { idle, recovery, spawn, spawnTorch } from "./life.ts";
import { limits } from "./limits.ts";
import { relay } from "./relay.ts";
import { again, chain, copies, footprint, images, mappings, shapes, sizes, small } from "./tensors.ts";

export const scenarios: readonly Scenario[] = [
  ...[calls, callback, stream, inflight, hosts, codecs],
  ...[sizes, chain, shapes, images, again, small, copies, mappings, footprint],
  dropIn,
  ...[firstCall, spawn, spawnTorch, idle, recovery, environments],
  ...[relay, limits],
  ...gpu,
];
