/**
 * A worker without Python: the client's own classes from the other side. Its nodes are functions of the test's.
 */
import { Channel } from "../../src/client/channel.ts";
import { Line } from "../../src/client/line.ts";
import { Memory, type MemoryOptions } from "../../src/client/memory/memory.ts";
import { PairLeases } from "../../src/client/memory/pair-leases.ts";
import type { Outlet } from "../../src/client/outlet.ts";
import { Pair } from "../../src/client/pair.ts";
import { ReferenceIds } from "../../src/client/references.ts";
import { systemClock } from "../../src/transport/clock.ts";
import { decode } from "../../src/transport/codec.ts";
import { AirlockError } from "../../src/transport/errors.ts";
import type { Frame } from "../../src/transport/frame.ts";
import { loadLibc } from "../../src/transport/libc.ts";
import { defaultLimits } from "../../src/transport/limits.ts";

export type Node = (inputs: Record<string, unknown>) => unknown;
/** The nodes of a pack, by name; a test adds what it needs. */
export type Nodes = Map<string, Node>;

export class TestWorker {
  readonly pair: Pair;
  readonly relay: Channel;
  /** Its line's end, and the descriptor of that. */
  #line: { readonly line: Line; readonly descriptor: number } | undefined;
  /** What the host has emitted: names and values. */
  readonly events: [string, unknown][] = [];

  /** Undefined where it shares none. */
  readonly memory: Memory | undefined;

  /**
   * @param peer the number by which frames name the host.
   * @param server where it shares memory: what passes it segments, and answers its calls about them.
   */
  constructor(peer: number, outlet: Outlet, nodes: Nodes, server?: Pick<MemoryOptions, "lane" | "callServer">) {
    const memory =
      server &&
      new Memory({
        ...server,
        libc: loadLibc(),
        clock: systemClock,
        attachmentsMax: defaultLimits.frameAttachmentsMax,
        collectGarbage: () => Bun.gc(true),
      });
    this.memory = memory;
    const run = ([name]: readonly unknown[], inputs: Record<string, unknown>): unknown => {
      const node = nodes.get(String(name));
      if (node === undefined) throw new AirlockError("node_not_found", `the pack has no node ${String(name)}`);
      return node(inputs);
    };
    this.relay = new Channel({ outlet, clock: systemClock, limits: defaultLimits, recipientOf: () => this.pair });
    this.pair = new Pair({
      peer,
      name: "blur",
      relay: this.relay,
      relayReferences: () => this.pair.references,
      clock: systemClock,
      limits: defaultLimits,
      ids: new ReferenceIds(),
      methods: new Map([["run", run]]),
      onEvent: (name, value) => this.events.push([name, value]),
      relayLeases: () => this.pair.leases,
      leases: memory && ((send) => new PairLeases({ memory, peer, name: "its host", audience: undefined, ...send })),
    });
  }

  /** Takes its end of a line. */
  async join(descriptor: number): Promise<void> {
    const line = await Line.open(this.pair, {
      descriptor,
      clock: systemClock,
      limits: defaultLimits,
      ending: async () => new AirlockError("disconnected", "the host is gone"),
      overdue: () => undefined,
      onEnd: () => undefined,
    });
    this.#line = { line, descriptor };
    this.pair.useLine(line.channel);
  }

  receive(frame: Frame): void {
    this.relay.receive(frame);
  }

  /** Calls its host, where that has such a method: as a host has none, to see what it says. */
  callHost(method: string, ...args: unknown[]): Promise<unknown> {
    return this.pair.call({ method, args, keywords: {}, options: {}, read: decode });
  }

  /** Ends it as a crash would: nothing is said any more. */
  end(): void {
    const reason = new AirlockError("disconnected", "this worker was ended");
    this.memory?.close();
    if (this.#line !== undefined) loadLibc().shutDown(this.#line.descriptor);
    this.#line?.line.close(reason);
    this.relay.end(reason);
    this.pair.end(reason);
  }
}
