/**
 * A host in TypeScript: connects to a server, opens packs and calls their nodes.
 *
 * Owns the connection and the packs that were opened on it. Every call ends exactly once: with its result, with an
 * {@link AirlockError}, or with the signal's reason when it is aborted.
 */
import { tmpdir } from "node:os";
import { resolve } from "node:path";
import { checkSocketPath, defaultSocketPath } from "../transport/address.ts";
import { systemClock } from "../transport/clock.ts";
import { decode, encode, encodeParts } from "../transport/codec.ts";
import { Connection } from "../transport/connection.ts";
import {
  eventBodySchema,
  features,
  type Hello,
  lineEventSchema,
  type OpenResult,
  openResultSchema,
  protocolVersions,
  type Status,
  segmentGoneSchema,
  serverPeer,
  statusSchema,
  validate,
  workerEndedSchema,
} from "../transport/control.ts";
import { Passed, type ReceivingLane } from "../transport/descriptor-lane.ts";
import { AirlockError, errorFromWire } from "../transport/errors.ts";
import { buildFrame, type Frame, FrameKind, frameBody, frameCall, frameKind, framePeer } from "../transport/frame.ts";
import { type Libc, loadLibc } from "../transport/libc.ts";
import { defaultLimits, type Limits } from "../transport/limits.ts";
import type { NdArray } from "../transport/values.ts";
import type { CallOptions } from "./call-options.ts";
import { Channel } from "./channel.ts";
import { CreditOutlet } from "./credit.ts";
import { shakeHands, type Welcomed } from "./handshake.ts";
import { callInProgress, runWithin } from "./incoming-call.ts";
import { Memory } from "./memory/memory.ts";
import { StreamOutlet } from "./outlet.ts";
import { Pack, type PackServer } from "./pack.ts";
import type { PackListeners } from "./pack-listeners.ts";
import { PackPeer } from "./pack-peer.ts";
import type { PackWorkers } from "./pack-workers.ts";
import { needsPool, Pool } from "./pool.ts";
import { ReferenceIds } from "./references.ts";
import { openStream } from "./stream.ts";

export interface ConnectOptions {
  /** Path of the server's socket; AIRLOCK_SOCKET or the user's own by default. */
  readonly socket?: string;
  /** What this host calls itself in listings. */
  readonly name?: string;
  /** A Python whose torch packs may share, where this host speaks for one. */
  readonly python?: { readonly executable: string; readonly version: string };
  readonly limits?: Partial<Limits>;
}

/**
 * Connects to a running server.
 *
 * @throws AirlockError `disconnected` where there is none, `unauthorized` where it is another user's, or what the server
 * says where it lets nobody in.
 */
export async function connect(options: ConnectOptions = {}): Promise<Airlock> {
  const socketPath =
    options.socket === undefined
      ? defaultSocketPath(process.env, process.getuid?.() ?? 0, tmpdir())
      : checkSocketPath(options.socket);
  return await Airlock.open(socketPath, options);
}

/** The packs that have no memory of their own. */
const sharedAudience = 0;

function helloOf(options: ConnectOptions): Frame {
  const hello: Hello = {
    protocol: protocolVersions,
    features: [features.line, features.credit, features.segments],
    role: "host",
    name: options.name ?? "bun",
    pid: process.pid,
    ...(options.python && { python: options.python }),
  };
  return buildFrame({ kind: FrameKind.hello, peer: serverPeer, call: 0, body: encode(hello) });
}

/** A connection to a server. */
export class Airlock implements PackServer, AsyncDisposable {
  readonly #limits: Limits;
  readonly #libc: Libc;
  readonly #lane: ReceivingLane | undefined;
  readonly #connection: Connection;
  readonly #relay: Channel;
  readonly #credit: CreditOutlet | undefined;
  /** By the number of each worker slot. */
  readonly #packs = new Map<number, PackPeer>();
  /** Those of packs that need one, by the number of the pack. */
  readonly #pools = new Map<number, Pool>();
  readonly #ids = new ReferenceIds();
  /** What is shared with packs; undefined where the server makes no segments. */
  readonly #memory: Memory | undefined;
  readonly #closed = Promise.withResolvers<void>();

  private constructor(connection: Connection, stream: StreamOutlet, welcomed: Welcomed, limits: Limits, libc: Libc) {
    const { welcome, lane } = welcomed;
    this.#connection = connection;
    this.#limits = limits;
    this.#libc = libc;
    this.#lane = lane;
    this.#credit =
      welcome.window !== undefined && welcome.features.includes(features.credit)
        ? new CreditOutlet(stream, welcome.window)
        : undefined;
    this.#memory =
      lane !== undefined && welcome.features.includes(features.segments)
        ? new Memory({
            libc,
            lane,
            clock: systemClock,
            attachmentsMax: limits.frameAttachmentsMax,
            // Whatever it comes from, it is done for nobody's call.
            callServer: (method, parameters) => runWithin(undefined, () => this.callServer(method, parameters)),
            collectGarbage: () => Bun.gc(true),
          })
        : undefined;
    this.#relay = new Channel({
      outlet: this.#credit ?? stream,
      clock: systemClock,
      limits,
      recipientOf: (peer) => this.#packs.get(peer)?.pair,
    });
  }

  /** Use {@link connect}. */
  static async open(socketPath: string, options: ConnectOptions): Promise<Airlock> {
    const limits = { ...defaultLimits, ...options.limits };
    const libc = loadLibc();
    const welcomed = await shakeHands(socketPath, helloOf(options), limits, libc);
    try {
      return await Airlock.#attach(welcomed, limits, libc);
    } catch (error) {
      welcomed.lane?.close();
      throw new AirlockError("disconnected", "the connection broke right after the welcome", {}, { cause: error });
    }
  }

  static async #attach(welcomed: Welcomed, limits: Limits, libc: Libc): Promise<Airlock> {
    const { airlock } = await openStream(welcomed.descriptor, (socket) => {
      const connection: Connection = new Connection(socket, limits, {
        onFrame: (frame) => airlock.#receive(frame),
        onBroken: (cause) => connection.abort(cause),
        onClose: (cause) => airlock.#end(cause),
      });
      const stream = new StreamOutlet(connection);
      const airlock = new Airlock(connection, stream, welcomed, limits, libc);
      connection.handleData(welcomed.rest);
      return { connection, airlock, onDrain: () => stream.flush() };
    });
    return airlock;
  }

  /**
   * Opens the pack in `folder`: its manifest is checked, nothing is started.
   *
   * @throws AirlockError `manifest_invalid`.
   */
  async open(folder: string): Promise<Pack> {
    const answer = await this.callServer("open", { folder: resolve(folder) });
    const opened = validate(openResultSchema, answer, "answer to open");
    return new Pack(this, this.#workersOf(opened), opened);
  }

  /** What has been opened before keeps its pool, which knows what is under way, as long as the manifest asks for the same. */
  #workersOf({ pack, name, workers, audience, fresh_process, nodes, call_timeout }: OpenResult): PackWorkers {
    const first = this.#packPeer(pack, name);
    const others = workers.slice(1).map((peer) => this.#packPeer(peer, name, first.listeners));
    for (const peer of [first, ...others]) {
      peer.callTimeout = call_timeout;
      peer.audience = audience;
    }
    const rules = { workers, fresh_process, nodes };
    if (!needsPool(rules)) return first;
    const known = this.#pools.get(pack);
    if (known !== undefined && Bun.deepEquals(known.rules, rules)) return known;
    const pool = new Pool({
      name,
      rules,
      peers: [first, ...others],
      clock: systemClock,
      graceMs: this.#limits.graceMs,
      retire: (peer) => this.callServer("retire", { pack: peer }),
      collectGarbage: () => Bun.gc(true),
    });
    this.#pools.set(pack, pool);
    return pool;
  }

  #packPeer(peer: number, name: string, listeners?: PackListeners): PackPeer {
    const known = this.#packs.get(peer);
    if (known !== undefined) return known;
    const made = new PackPeer({
      peer,
      name,
      relay: this.#relay,
      clock: systemClock,
      limits: this.#limits,
      ids: this.#ids,
      memory: this.#memory,
      ...(listeners && { listeners }),
      callServer: (method, parameters) => this.callServer(method, parameters),
    });
    this.#packs.set(peer, made);
    return made;
  }

  /**
   * A copy of an array in memory that packs can be passed: sending it copies nothing, however often, as long as nobody
   * writes to it. A pack whose memory is private gets a copy of its own each time. The memory is free again once neither
   * this copy nor any pack has it.
   *
   * @throws AirlockError `limit_exceeded` where there is no memory for it.
   */
  async share(array: NdArray): Promise<NdArray> {
    return (await this.#memory?.shared(array, sharedAudience)) ?? array;
  }

  /** How the server is: its packs and their workers. */
  async status(): Promise<Status> {
    return validate(statusSchema, await this.callServer("status", {}), "answer to status");
  }

  /** As {@link status}, after the workers were asked how they are; takes a second where one does not say. */
  async stats(): Promise<Status> {
    return validate(statusSchema, await this.callServer("stats", {}), "answer to stats");
  }

  /** Settles when the connection has ended, whoever ended it. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** Used by {@link Pack}, and for methods of the server that have none here. Throws as the server answers. */
  async callServer(method: string, parameters: object, options: CallOptions = {}): Promise<unknown> {
    return await this.#relay.calls.call({
      ...options,
      peer: serverPeer,
      body: encodeParts([method, [], { ...parameters }]),
      hasReferences: false,
      bytesMax: this.#limits.controlBytesMax,
      within: callInProgress(),
      references: () => undefined,
      read: (body) => decode(body),
    });
  }

  /** What is about the connection itself, or of the server's own accord, is taken here; all else is the relay's. */
  #receive(frame: Frame): void {
    const kind = frameKind(frame);
    if (kind === FrameKind.error && frameCall(frame) === 0) {
      this.#connection.abort(errorFromWire(decode(frameBody(frame))));
    } else if (kind === FrameKind.line) this.#receiveLine(framePeer(frame), frameCall(frame));
    else if (kind === FrameKind.credit) this.#credit?.grant(framePeer(frame), frameCall(frame));
    else if (kind === FrameKind.event && framePeer(frame) === serverPeer) this.#receiveEvent(frameBody(frame));
    else this.#relay.receive(frame);
  }

  #receiveLine(peer: number, number: number): void {
    if (this.#lane === undefined) throw new AirlockError("protocol_error", "the server named a line and gave no lane");
    const descriptor = this.#takeDescriptor(this.#lane, number);
    if (descriptor === undefined) return;
    const pack = this.#packs.get(peer);
    if (pack === undefined) this.#libc.close(descriptor);
    // Where it can't be used, the relay goes on, and the worker sees the line's end.
    else pack.takeLine(descriptor, number).catch(() => undefined);
  }

  /** Undefined where this process has no room for it: the relay goes on. */
  #takeDescriptor(lane: ReceivingLane, number: number): number | undefined {
    try {
      return lane.take(Passed.line, number);
    } catch (error) {
      if (error instanceof AirlockError && error.code === "limit_exceeded") return undefined;
      throw error;
    }
  }

  /** Events that this host has no word for are passed over: a later server may have more. */
  #receiveEvent(body: Uint8Array): void {
    const [name, value] = validate(eventBodySchema, decode(body), "event");
    if (name === "worker_ended") {
      const { pack, number } = validate(workerEndedSchema, value, "event worker_ended");
      this.#packs.get(pack)?.workerEnded(number);
    } else if (name === "leave_line" || name === "use_line") {
      const { pack, line } = validate(lineEventSchema, value, `event ${name}`);
      if (name === "leave_line") void this.#packs.get(pack)?.leaveLine(line);
      else this.#packs.get(pack)?.useLine(line);
    } else if (name === "segment_gone") {
      this.#memory?.segmentGone(validate(segmentGoneSchema, value, "event segment_gone").segment);
    } else if (name === "tell_memory") {
      // It keeps no account, and says so: who asks would wait for it otherwise.
      this.callServer("memory", { report: null }).catch(() => undefined);
    }
  }

  #end(cause: AirlockError | undefined): void {
    const reason = cause ?? new AirlockError("disconnected", "the server closed the connection");
    this.#memory?.close();
    this.#lane?.close();
    for (const pack of this.#packs.values()) pack.end(reason);
    this.#relay.end(reason);
    this.#closed.resolve();
  }

  /** Ends the connection; the server ends this host's workers. Calls under way are rejected. */
  async close(): Promise<void> {
    this.#connection.end(new AirlockError("disconnected", "the connection was closed by this host"));
    await this.#closed.promise;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
