/** A host of the client's own code at a model of the relay, with the pack "blur" open; both end when it is disposed of. */
import { join } from "node:path";
import { type Airlock, connect } from "../../src/client/client.ts";
import type { Pack } from "../../src/client/pack.ts";
import { until } from "../support/until.ts";
import { ModelRelay, type RelayOptions } from "./model-relay.ts";

export interface ModelHost extends AsyncDisposable {
  /** Its node "Echo" answers with its `value`. */
  readonly relay: ModelRelay;
  readonly airlock: Airlock;
  readonly pack: Pack;
}

/** @param folder where its socket is made. */
export async function openedAtModel(folder: string, options: RelayOptions): Promise<ModelHost> {
  const path = join(folder, "server.sock");
  const relay = new ModelRelay(path, options);
  relay.nodes.set("Echo", ({ value }) => value);
  const airlock = await connect({ socket: path });
  const pack = await airlock.open("/packs/blur");
  return {
    relay,
    airlock,
    pack,
    async [Symbol.asyncDispose]() {
      relay[Symbol.dispose]();
      await airlock.close();
    },
  };
}

/** The first call to a worker goes over the relay, as no worker runs. Calls until one goes over the line. */
export async function untilOnLine({ relay, pack }: ModelHost): Promise<void> {
  await until(async () => {
    const before = relay.hostCalls;
    await pack.call("Echo");
    return relay.hostCalls === before;
  }, "calls go over the line");
}
