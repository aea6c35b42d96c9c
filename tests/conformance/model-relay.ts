/**
 * The relay as PROTOCOL.md describes it, for one host and one pack whose worker lives in this process: a real socket, a
 * lane, lines and credit, and nothing of the server's own code.
 */

import type { Socket, UnixSocketListener } from "bun";
import { decode, encode } from "../../src/transport/codec.ts";
import { Connection } from "../../src/transport/connection.ts";
import { DescriptorLane, Passed } from "../../src/transport/descriptor-lane.ts";
import { errorToWire, toAirlockError } from "../../src/transport/errors.ts";
import {
  buildFrame,
  type Frame,
  FrameKind,
  frameAttachments,
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
import { ModelSegments, type Side, TableLane } from "./model-segments.ts";
import { type Nodes, TestWorker } from "./worker.ts";

/** Kinds that take no credit: they may be what ends a jam. */
const uncreditedKinds: ReadonlySet<number> = new Set([
  FrameKind.cancel,
  FrameKind.release,
  FrameKind.return,
  FrameKind.reclaim,
]);

export const hostPeer = 7;
export const packPeer = 5;

export interface RelayOptions {
  /** Whether workers get a line. */
  readonly line: boolean;
  /** Whether workers leave the first line that they get unread. */
  readonly deaf?: boolean;
  /** Whether the host and its workers share memory. */
  readonly segments?: boolean;
  /** Bytes that may be under way to the worker; without, there is no credit. */
  readonly window?: number;
}

/** A call that is relayed, by the relay's own number. */
interface RelayedCall {
  readonly caller: Side;
  readonly callerCall: number;
  isAbandoned: boolean;
}

interface RunningWorker {
  readonly number: number;
  readonly worker: TestWorker;
  readonly lane: TableLane;
  readonly ended: PromiseWithResolvers<void>;
}

export class ModelRelay implements Disposable {
  readonly nodes: Nodes = new Map();
  /** What the host has asked of the server: methods with their parameters. */
  readonly asked: [string, unknown][] = [];
  readonly segments = new ModelSegments((to, number, descriptor) => {
    if (to === "host") this.#lane?.pass(Passed.segment, number, descriptor);
    else this.#running?.lane.pass(number, descriptor);
  });
  /** Bytes of the frames that were relayed. */
  relayedBytes = 0;
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
    this.relayedBytes += length;
    const takesCredit = from === "host" && !uncreditedKinds.has(kind);
    if (takesCredit) this.#use(length);
    if (kind === FrameKind.call) this.#relayCall(from, frame);
    else if (kind === FrameKind.cancel) this.#relayCancel(from, frame);
    else if (kind === FrameKind.event || uncreditedKinds.has(kind)) this.#pass(from, frame);
    else this.#relayAnswer(from, frame);
    if (takesCredit) this.#giveBack(length);
  }

  /** As the server does: nobody is named a block of what it was not passed. */
  #checkBlocks(from: Side, frame: Frame): void {
    for (const { segment } of frameAttachments(frame)) {
      if (frameKind(frame) !== FrameKind.return && !this.segments.named(segment)) {
        throw new Error(`the ${from} names a block of segment ${segment}, which was not shared`);
      }
    }
  }

  #welcome({ features }: { features: string[] }): void {
    const { line, window, segments = false } = this.#options;
    const hasLane = line || segments;
    const offered = [
      ...(hasLane ? ["line"] : []),
      ...(segments ? ["segments"] : []),
      ...(window === undefined ? [] : ["credit"]),
    ];
    const body = encode({
      protocol: 1,
      features: offered.filter((feature) => features.includes(feature)),
      peer: hostPeer,
      server: { version: "0", pid: process.pid },
      ...(window !== undefined && { window }),
      ...(segments && { memory: { sealed: true, bytes_max: 2 ** 40 } }),
    });
    const frame = buildFrame({ kind: FrameKind.welcome, peer: 0, call: 0, body });
    if (hasLane) this.#lane = DescriptorLane.open(this.#libc, this.#descriptor, frame);
    else this.#connection?.send(frame);
  }

  async #control(frame: Frame): Promise<void> {
    const [method, , parameters] = decode(frameBody(frame)) as [string, unknown, { line: number }];
    const call = frameCall(frame);
    this.asked.push([method, parameters]);
    const answer = (kind: "result" | "error", value: unknown): void =>
      this.#connection?.send(buildFrame({ kind: FrameKind[kind], peer: 0, call, body: encode(value) }));
    try {
      const answered = this.segments.answer("host", method, parameters);
      if (answered !== undefined) return answer("result", answered.value);
    } catch (error) {
      return answer("error", errorToWire(toAirlockError(error)));
    }
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
    if (from === "host" && !this.segments.workerTakesThem && frameAttachments(frame).length > 0) {
      this.#returnBlocks("host", frame);
      const message = "the worker takes no segments";
      return this.#tell("host", id, { code: "value_unsupported", message, delivered: false });
    }
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
    if (call.isAbandoned && !frameHasReferences(frame)) return this.#returnBlocks(from, frame);
    setFrameCall(frame, call.isAbandoned ? 0 : call.callerCall);
    this.#pass(from, frame);
  }

  /** What is not delivered goes back. */
  #returnBlocks(to: Side, frame: Frame): void {
    const attachments = frameAttachments(frame);
    if (attachments.length === 0) return;
    const peer = to === "worker" ? hostPeer : packPeer;
    const back = buildFrame({ kind: FrameKind.return, peer, call: 1, attachments });
    if (to === "worker") this.#running?.worker.receive(back);
    else this.#connection?.send(back);
  }

  #pass(from: Side, frame: Frame): void {
    this.#checkBlocks(from, frame);
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
    const lane = new TableLane();
    const callServer = async (method: string, parameters: object): Promise<unknown> =>
      this.segments.answer("worker", method, parameters)?.value;
    const memory = this.#options.segments ? { lane, callServer } : undefined;
    const worker = new TestWorker(hostPeer, outlet, this.nodes, memory);
    const running = { number, worker, lane, ended: Promise.withResolvers<void>() };
    this.#running = running;
    this.segments.workerStarted();
    this.#workers.push(running);
    this.#joinByLine(worker, number);
    return running;
  }

  #joinByLine(worker: TestWorker, number: number): void {
    if (this.#lane === undefined || !this.#options.line) return;
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
    running.lane.close();
    if (this.#unread !== undefined) this.#libc.close(this.#unread);
    this.#unread = undefined;
    running.ended.resolve();
    this.segments.workerEnded();
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
    this.segments[Symbol.dispose]();
    this.#listener.stop(true);
  }
}

const died = { code: "worker_died", message: "pack blur: its worker ended during the call: killed by SIGKILL" };
