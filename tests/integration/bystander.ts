/** A host of the same server, who has nothing to do with what a test is about, and must not notice any of it. */
import { expect } from "bun:test";
import { type AirlockError, type ServeOptions, type Server, type ServerEvent, Tuple } from "../../src/index.ts";
import { until, type World } from "./support.ts";

export interface Bystander extends AsyncDisposable {
  readonly server: Server;
  /** Its worker's process id. */
  readonly worker: number;
  /** Why the server closed the connection of the peer of this number; waits until it has. */
  causeOfEnd(peer: number): Promise<AirlockError | undefined>;
  /** Calls until it has heard from its worker as often as before: by the worker that it had, and by no other. */
  isUndisturbed(): Promise<void>;
}

/** Starts a server, and a host on it that calls the probe pack, one call after another, until it is disposed of. */
export async function newBystander(world: World, options: ServeOptions = {}): Promise<Bystander> {
  const events: ServerEvent[] = [];
  const { server, pack } = await world.probe({ ...options, onEvent: (event) => events.push(event) });
  const { pid } = await pack.describe();
  let [calls, isOver] = [0, false];
  const calling = (async () => {
    while (!isOver) {
      expect(await pack.call("Echo", { value: calls })).toEqual(Tuple.of(calls));
      calls += 1;
    }
  })();
  // Awaited at the end: until then it is no unhandled rejection.
  calling.catch(() => undefined);
  return {
    server,
    worker: pid,
    async causeOfEnd(peer) {
      const find = () => events.find((event) => event.type === "peer_closed" && event.peer === peer);
      await until(() => find() !== undefined, "its connection is closed");
      return (find() as { cause: AirlockError | undefined }).cause;
    },
    async isUndisturbed() {
      const enough = calls + 3;
      while (calls < enough) await Promise.race([calling, Bun.sleep(1)]);
      expect((await pack.describe()).pid).toBe(pid);
    },
    async [Symbol.asyncDispose]() {
      isOver = true;
      await calling;
    },
  };
}
