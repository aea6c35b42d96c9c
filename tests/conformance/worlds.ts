/**
 * A host with a pack open, over each transport: what the cases run on.
 */
import { Channel } from "../../src/client/channel.ts";
import type { Outlet } from "../../src/client/outlet.ts";
import { Pack } from "../../src/client/pack.ts";
import { PackPeer } from "../../src/client/pack-peer.ts";
import { ReferenceIds } from "../../src/client/references.ts";
import { systemClock } from "../../src/transport/clock.ts";
import type { Frame } from "../../src/transport/frame.ts";
import { defaultLimits } from "../../src/transport/limits.ts";
import { openedAs } from "../support/peers.ts";
import { openedAtModel, untilOnLine } from "./model-host.ts";
import { hostPeer, packPeer, type RelayOptions } from "./model-relay.ts";
import { type Nodes, TestWorker } from "./worker.ts";

export interface World extends AsyncDisposable {
  readonly pack: Pack;
  /** The pack's nodes: functions that run in the worker. */
  readonly nodes: Nodes;
  /** The worker that runs; none does before the first call. */
  readonly worker: TestWorker;
  /** Ends the worker as a crash would. The memory transport has no server that could tell. */
  endWorker?(): void;
}

export type OpenWorld = (folder: string) => Promise<World>;

/** Two ends joined without sockets: what one sends, the other gets in a later turn. */
export const overMemory: OpenWorld = async () => {
  const nodes: Nodes = new Map();
  const toHost: Outlet = queueTo((frame) => relay.receive(frame));
  const worker: TestWorker = new TestWorker(hostPeer, toHost, nodes);
  const relay: Channel = new Channel({
    outlet: queueTo((frame) => worker.receive(frame)),
    clock: systemClock,
    limits: defaultLimits,
    recipientOf: () => peer.pair,
  });
  const server = { callServer: async () => null };
  const peer: PackPeer = new PackPeer({
    peer: packPeer,
    name: "blur",
    relay,
    clock: systemClock,
    limits: defaultLimits,
    ids: new ReferenceIds(),
    ...server,
  });
  const pack = new Pack(server, peer, openedAs(packPeer));
  return {
    pack,
    nodes,
    worker,
    async [Symbol.asyncDispose]() {
      worker.end();
    },
  };
};

function queueTo(receive: (frame: Frame) => void): Outlet {
  return {
    send(frame, onLeft) {
      const copy = frame.slice();
      setImmediate(() => receive(copy));
      onLeft?.();
    },
    withdraw: () => false,
  };
}

/** A model of the relay behind a real socket; with lines, a socket pair to the worker. */
export function overRelay(options: RelayOptions): OpenWorld {
  return async (folder) => {
    const host = await openedAtModel(folder, options);
    if (options.line) await untilOnLine(host);
    const { relay, pack } = host;
    return {
      pack,
      nodes: relay.nodes,
      get worker() {
        return relay.worker;
      },
      endWorker: () => relay.endWorker(),
      [Symbol.asyncDispose]: () => host[Symbol.asyncDispose](),
    };
  };
}
