/**
 * The relay as PROTOCOL.md describes it, for one host and one pack whose worker lives in this process: a real socket, a
 * lane, lines and credit, and nothing of the server's own code.
 */

import type { Socket, UnixSocketListener } from "bun";
import { decode, encode } from "../../src/transport/codec.ts";
import { Connection } from "../../src/transport/connection.ts";
import { DescriptorLane, Passed } from "../../src/transport/descriptor-lane.ts";
import {
  buildFrame,
  type Frame,
  FrameKind,
  frameBody,
  frameCall,
  frameHasReferences,
  frameKind,
  frameParent,
  framePeer,
  setFrameCall,
  setFrameParent,
  setFramePeer,
} from "../../src/transport/frame.ts";
import { loadLibc } from "../../src/transport/libc.ts";
import { defaultLimits } from "../../src/transport/limits.ts";
import { openedAs } from "../support/peers.ts";
import { type Nodes, TestWorker } from "./worker.ts";

export const hostPeer = 7;
export const packPeer = 5;

export interface RelayOptions {
  /** Whether workers get a line. */
  readonly line: boolean;
  /** Whether workers leave the first line that they get unread. */
  readonly deaf?: boolean;
  /** Bytes that may be under way to the worker; without, there is no credit. */
  readonly window?: number;
}

type Side = "host" | "worker";

/** A call that is relayed, by the relay's own number. */
interface RelayedCall {
  readonly caller: Side;
  readonly callerCall: number;
  isAbandoned: boolean;
}

interface RunningWorker {
  readonly number: number;
  readonly worker: TestWorker;
  readonly ended: PromiseWithResolvers<void>;
}

export class ModelRelay implements Disposable {
  readonly nodes: Nodes = new Map();
  /** What the host has asked of the server: methods with their parameters. */
  readonly asked: [string, unknown][] = [];
  readonly #options: RelayOptions;
  readonly #libc = loadLibc();
  readonly #listener: UnixSocketListener<undefined>;
  readonly #calls = new Map<number, RelayedCall>();
  #connection: Connection | undefined;
  #descriptor = -1;
  #lane: DescriptorLane | undefined;
  #running: RunningWorker | undefined;
  readonly #workers: RunningWorker[] = [];
  /** The worker's end of a line that nobody reads. */
  #unread: number | undefined;
  #lastCall = 1000;
  /** Credit is not given back while this is set. */
  holdsCredit = false;
  #creditHeld = 0;
  #usedBytes = 0;
  /** Calls of the host's to its pack that came this way. */
  hostCalls = 0;
  /** The most that was under way to the worker at a time. */
  mostUsedBytes = 0;

  constructor(path: string, options: RelayOptions) {
    this.#options = options;
    this.#listener = Bun.listen<undefined>({
      unix: path,
      socket: {
        open: (socket) => this.#open(socket),
        data: (_, chunk) => this.#connection?.handleData(chunk),
        drain: () => this.#connection?.handleDrain(),
        close: () => this.#connection?.handleClose(),
      },
    });
  }

  #open(socket: Socket<undefined>): void {
    this.#descriptor = (socket as unknown as { fd: number }).fd;
    this.#connection = new Connection(socket as Socket<unknown>, defaultLimits, {
      onFrame: (frame) => this.#receive("host", frame),
      onBroken: (cause) => this.#connection?.abort(cause),
      onClose: () => undefined,
    });
  }

  /** The worker that runs. */
  get worker(): TestWorker {
    if (this.#running === undefined) throw new Error("no worker runs");
    return this.#running.worker;
  }

  #receive(from: Side, frame: Frame): void {
    const kind = frameKind(frame);
    if (kind === FrameKind.hello) return this.#welcome(decode(frameBody(frame)) as { features: string[] });
    if (kind === FrameKind.call && framePeer(frame) === 0) return void this.#control(frame);
    const length = frame.byteLength;
    const takesCredit = from === "host" && kind !== FrameKind.cancel && kind !== FrameKind.release;
    if (takesCredit) this.#use(length);
    if (kind === FrameKind.call) this.#relayCall(from, frame);
    else if (kind === FrameKind.cancel) this.#relayCancel(from, frame);
    else if (kind === FrameKind.event || kind === FrameKind.release) this.#pass(from, frame);
    else this.#relayAnswer(from, frame);
    if (takesCredit) this.#giveBack(length);
  }

  #welcome({ features }: { features: string[] }): void {
    const { line, window } = this.#options;
    const offered = [...(line ? ["line"] : []), ...(window === undefined ? [] : ["credit"])];
    const body = encode({
      protocol: 1,
      features: offered.filter((feature) => features.includes(feature)),
      peer: hostPeer,
      server: { version: "0", pid: process.pid },
      ...(window !== undefined && { window }),
    });
    const frame = buildFrame({ kind: FrameKind.welcome, peer: 0, call: 0, body });
    if (line) this.#lane = DescriptorLane.open(this.#libc, this.#descriptor, frame);
    else this.#connection?.send(frame);
  }

  async #control(frame: Frame): Promise<void> {
    const [method, , parameters] = decode(frameBody(frame)) as [string, unknown, { line: number }];
    const call = frameCall(frame);
    this.asked.push([method, parameters]);
    const answer = (kind: "result" | "error", value: unknown): void =>
      this.#connection?.send(buildFrame({ kind: FrameKind[kind], peer: 0, call, body: encode(value) }));
    if (method === "open") answer("result", openedAs(packPeer));
    else if (method === "ending") {
      await this.#workers.find(({ number }) => number === parameters.line)?.ended.promise;
      answer("error", died);
    } else answer("result", null);
  }

  /** Counts what is under way to the worker, and refuses more than is allowed. */
  #use(bytes: number): void {
    const { window } = this.#options;
    if (window === undefined) return;
    if (this.#usedBytes >= window) throw new Error(`the host sends though it has ${this.#usedBytes} bytes under way`);
    this.#usedBytes += bytes;
    this.mostUsedBytes = Math.max(this.mostUsedBytes, this.#usedBytes);
  }

  #giveBack(bytes: number): void {
    if (this.#options.window === undefined) return;
    this.#creditHeld += bytes;
    if (!this.holdsCredit) this.grant();
  }

  /** Gives back all credit that is due. */
  grant(): void {
    const bytes = this.#creditHeld;
    this.#creditHeld = 0;
    this.#usedBytes -= bytes;
    this.#connection?.send(buildFrame({ kind: FrameKind.credit, peer: packPeer, call: bytes }));
  }

  #relayCall(from: Side, frame: Frame): void {
    if (from === "host") {
      this.hostCalls += 1;
      this.#running ??= this.#start();
    }
    this.#lastCall += 1;
    const id = this.#lastCall;
    this.#calls.set(id, { caller: from, callerCall: frameCall(frame), isAbandoned: false });
    const parent = frameParent(frame);
    if (parent !== undefined) {
      const known = this.#calls.get(parent);
      if (known === undefined) return this.#tell(from, id, { code: "cancelled", message: "its parent is over" });
      setFrameParent(frame, known.callerCall);
    }
    setFrameCall(frame, id);
    this.#pass(from, frame);
  }

  #tell(side: Side, id: number, error: object): void {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    if (call === undefined || call.isAbandoned) return;
    const frame = buildFrame({ kind: FrameKind.error, peer: 0, call: call.callerCall, body: encode(error) });
    this.#pass(side === "host" ? "worker" : "host", frame);
  }

  #relayCancel(from: Side, frame: Frame): void {
    const number = frameCall(frame);
    for (const [id, call] of this.#calls) {
      if (call.caller !== from || call.callerCall !== number || call.isAbandoned) continue;
      call.isAbandoned = true;
      setFrameCall(frame, id);
      this.#pass(from, frame);
    }
  }

  #relayAnswer(from: Side, frame: Frame): void {
    const id = frameCall(frame);
    const call = this.#calls.get(id);
    if (call === undefined || call.caller === from) throw new Error(`call ${id} is not the ${from}'s to answer`);
    if (frameKind(frame) !== FrameKind.progress) this.#calls.delete(id);
    if (call.isAbandoned && !frameHasReferences(frame)) return;
    setFrameCall(frame, call.isAbandoned ? 0 : call.callerCall);
    this.#pass(from, frame);
  }

  #pass(from: Side, frame: Frame): void {
    setFramePeer(frame, from === "host" ? hostPeer : packPeer);
    if (from === "worker") this.#connection?.send(frame);
    else this.#running?.worker.receive(frame);
  }

  #start(): RunningWorker {
    const number = this.#workers.length + 1;
    const outlet = {
      send: (frame: Frame, onLeft?: () => void): void => {
        // Not within the worker's own turn: what it sends may be answered before it expects that.
        queueMicrotask(() => {
          if (this.#running === running) this.#receive("worker", frame);
        });
        onLeft?.();
      },
      withdraw: () => false,
    };
    const worker = new TestWorker(hostPeer, outlet, this.nodes);
    const running = { number, worker, ended: Promise.withResolvers<void>() };
    this.#workers.push(running);
    this.#joinByLine(worker, number);
    return running;
  }

  #joinByLine(worker: TestWorker, number: number): void {
    if (this.#lane === undefined) return;
    const [hostEnd, workerEnd] = this.#libc.socketPair();
    if (this.#options.deaf && number === 1) this.#unread = workerEnd;
    else void worker.join(workerEnd);
    this.#lane.pass(Passed.line, number, hostEnd);
    this.#libc.close(hostEnd);
    this.#connection?.send(buildFrame({ kind: FrameKind.line, peer: packPeer, call: number }));
  }

  /** Ends the worker as if its process had: its calls are answered, then the host is told. */
  endWorker(): void {
    const running = this.#running;
    if (running === undefined) return;
    this.#running = undefined;
    running.worker.end();
    if (this.#unread !== undefined) this.#libc.close(this.#unread);
    this.#unread = undefined;
    running.ended.resolve();
    for (const [id, call] of this.#calls) {
      if (call.caller === "host") this.#tell("host", id, died);
      else {
        call.isAbandoned = true;
        this.#pass("worker", buildFrame({ kind: FrameKind.cancel, peer: packPeer, call: id }));
      }
    }
    this.tellHost("worker_ended", { pack: packPeer, number: running.number });
  }

  /** Sends the host an event of the server's own. */
  tellHost(name: string, value: object): void {
    const body = encode([name, value]);
    this.#connection?.send(buildFrame({ kind: FrameKind.event, peer: 0, call: 0, body }));
  }

  [Symbol.dispose](): void {
    this.endWorker();
    this.#lane?.close();
    this.#connection?.abort();
    this.#listener.stop(true);
  }
}

const died = { code: "worker_died", message: "pack blur: its worker ended during the call: killed by SIGKILL" };
