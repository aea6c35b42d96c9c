/**
 * The door: accepts connections on the Unix socket, and lets in who proves to belong here.
 *
 * Owns every connection until its hello is accepted: the same user as the server's by SO_PEERCRED, a protocol version in
 * common, and for a worker the token and the process id that it was spawned with. Then hands its frames to the router.
 */
import type { Socket, UnixSocketListener } from "bun";
import type { Clock, Timer } from "../transport/clock.ts";
import { decode, encode } from "../transport/codec.ts";
import { Connection, type ConnectionEvents } from "../transport/connection.ts";
import {
  features,
  type Hello,
  helloSchema,
  protocolVersions,
  serverPeer,
  validate,
  type Welcome,
  type WorkerEntry,
} from "../transport/control.ts";
import { DescriptorLane, type LaneLibc } from "../transport/descriptor-lane.ts";
import { AirlockError, errorToWire, toAirlockError } from "../transport/errors.ts";
import {
  buildFrame,
  checkFrameLength,
  type Frame,
  FrameKind,
  frameBody,
  frameKind,
  frameLength,
  framePeer,
} from "../transport/frame.ts";
import type { Libc } from "../transport/libc.ts";
import type { Limits } from "../transport/limits.ts";
import { WriteBatch } from "../transport/write-batch.ts";
import type { OnServerEvent } from "./events.ts";
import type { Router } from "./router.ts";
import type { Session } from "./session.ts";
import type { Slot } from "./slot.ts";
import type { Worker } from "./workers/worker.ts";

/** How long a peer that is shown out may take to read why. */
const lastWordsMs = 1_000;

/** A worker that was spawned and has not said hello. */
export interface ExpectedWorker {
  readonly worker: Worker;
  readonly slot: Slot;
}

export interface DoorOptions {
  readonly socketPath: string;
  readonly version: string;
  readonly uid: number;
  readonly limits: Limits;
  readonly clock: Clock;
  readonly router: Router;
  readonly libc: LaneLibc & Pick<Libc, "peerCredentials">;
  /** Whether the kernel keeps receivers of a segment from writing to it. */
  readonly sealsSegments: boolean;
  /** Workers that may say hello, by token. The door takes each out when it is let in. */
  readonly expected: Map<string, ExpectedWorker>;
  readonly onEvent: OnServerEvent;
  /** A host's connection ended. */
  readonly onHostGone: (session: Session) => void;
}

/** A connection and who turned out to be at its other end. */
interface Visitor {
  readonly connection: Connection;
  /** What events call it: a host's own name for itself, a worker's pack. */
  name: string;
  /** The connection's descriptor. Bun's typings leave it out. */
  readonly descriptor: number;
  /** The process that connected, as the kernel told; 0 until it has. */
  pid: number;
  /** Runs until the hello is due, and once more until the last words must have been read. */
  timer?: Timer;
  session?: Session;
  /** The worker that it turned out to be. */
  worker?: Worker;
}

type PeerSocket = Socket<Visitor>;

export class Door {
  readonly #options: DoorOptions;
  readonly #listener: UnixSocketListener<Visitor>;
  readonly #visitors = new Set<Visitor>();
  readonly #batch = new WriteBatch();
  #onLastLeft: () => void = () => undefined;
  #refusesHosts = false;

  /**
   * Opens the door.
   *
   * @throws AirlockError `bad_request` where the socket cannot be bound.
   */
  constructor(options: DoorOptions) {
    this.#options = options;
    this.#listener = this.#listen();
  }

  #listen(): UnixSocketListener<Visitor> {
    const { socketPath } = this.#options;
    try {
      return Bun.listen<Visitor>({
        unix: socketPath,
        socket: {
          open: (socket) => this.#open(socket),
          data: (socket, chunk) => socket.data?.connection.handleData(chunk),
          drain: (socket) => socket.data?.connection.handleDrain(),
          close: (socket, error) => socket.data?.connection.handleClose(error),
          error: (socket, error) => socket.data?.connection.handleClose(error),
        },
      });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      const message = `no server can listen at ${socketPath}: ${reason}`;
      throw new AirlockError("bad_request", message, {}, { cause: error });
    }
  }

  /** Lets no further host in. Workers still are: calls that were taken may wait for one that is starting. */
  refuseHosts(): void {
    this.#refusesHosts = true;
  }

  /** Stops listening and shows everybody out, with `cause`; settles when all are gone, which takes a second at most. */
  async close(cause: AirlockError): Promise<void> {
    this.#listener.stop(false);
    for (const visitor of [...this.#visitors]) this.#sayGoodbye(visitor, cause);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onLastLeft = resolve;
    if (this.#visitors.size > 0) await promise;
  }

  #open(socket: PeerSocket): void {
    const { limits, clock } = this.#options;
    const events: ConnectionEvents = {
      onHeader: (header) => this.#checkHeader(visitor, header),
      onFrame: (frame) => this.#receive(visitor, frame),
      onBroken: (cause) => this.#sayGoodbye(visitor, cause),
      onClose: (cause) => this.#closed(visitor, cause),
    };
    const connection: Connection = new Connection(socket as Socket<unknown>, limits, events, this.#batch);
    const { fd: descriptor } = socket as unknown as { fd: number };
    const visitor: Visitor = { connection, descriptor, name: "", pid: 0 };
    socket.data = visitor;
    this.#visitors.add(visitor);
    try {
      visitor.pid = this.#checkStranger(descriptor);
    } catch (error) {
      this.#sayGoodbye(visitor, toAirlockError(error, "unauthorized"));
      return;
    }
    visitor.timer = clock.after(limits.helloMsMax, () =>
      this.#sayGoodbye(visitor, new AirlockError("protocol_error", `no hello within ${limits.helloMsMax / 1000} s`)),
    );
  }

  /** Returns the process id of the connecting process. */
  #checkStranger(descriptor: number): number {
    const { libc, limits, uid } = this.#options;
    const credentials = libc.peerCredentials(descriptor);
    if (credentials.uid !== uid && credentials.uid !== 0) {
      throw new AirlockError("unauthorized", `user ${credentials.uid} may not connect to the server of user ${uid}`);
    }
    if (this.#visitors.size > limits.peersMax) {
      throw new AirlockError("limit_exceeded", `${limits.peersMax} connections are open already`);
    }
    return credentials.pid;
  }

  /** Keeps who is not let in yet, and who asks something small of the server, from making it buffer much. */
  #checkHeader(visitor: Visitor, header: Uint8Array): void {
    const kind = frameKind(header);
    if (visitor.session === undefined && kind !== FrameKind.hello) {
      throw new AirlockError("protocol_error", "the first frame is not a hello");
    }
    const { controlBytesMax, checkpointBytesMax } = this.#options.limits;
    const isForServer = framePeer(header) === serverPeer;
    if (kind === FrameKind.hello || (kind === FrameKind.call && isForServer)) {
      checkFrameLength(frameLength(header), controlBytesMax);
    } else if (kind === FrameKind.event && isForServer) checkFrameLength(frameLength(header), checkpointBytesMax);
  }

  #receive(visitor: Visitor, frame: Frame): void {
    try {
      if (visitor.session !== undefined) this.#options.router.receive(visitor.session, frame);
      else this.#letIn(visitor, frame);
    } catch (error) {
      this.#sayGoodbye(visitor, toAirlockError(error));
    }
  }

  #letIn(visitor: Visitor, frame: Frame): void {
    const hello = validate(helloSchema, decode(frameBody(frame)), "hello");
    const protocol = Math.min(protocolVersions.max, hello.protocol.max);
    if (protocol < Math.max(protocolVersions.min, hello.protocol.min)) {
      const spoken = `this server speaks versions ${protocolVersions.min} to ${protocolVersions.max}`;
      const asked = `the peer ${hello.protocol.min} to ${hello.protocol.max}`;
      throw new AirlockError("unsupported_version", `${spoken}, ${asked}`, {
        hint: "install the same version of comfy-airlock on both sides",
      });
    }
    if (hello.role === "host" && this.#refusesHosts) {
      throw new AirlockError("server_stopping", "the server is stopping and takes no new hosts");
    }
    const expected = hello.role === "worker" ? this.#claim(hello, visitor.pid) : undefined;
    visitor.timer?.cancel();
    const session = this.#options.router.join(hello, visitor.connection, expected?.slot);
    visitor.session = session;
    this.#sendWelcome(visitor, session, protocol, expected?.slot);
    if (expected !== undefined) {
      visitor.worker = expected.worker;
      expected.worker.admit(session);
    }
    visitor.name = expected?.slot.name ?? hello.name;
    const { name, pid } = visitor;
    this.#options.onEvent({ type: "peer_connected", peer: session.peer, role: hello.role, name, pid });
  }

  /** The worker that this process was spawned as. The token alone could have been read by somebody else. */
  #claim(hello: Hello, pid: number): ExpectedWorker {
    const { expected } = this.#options;
    const claimed = hello.token === undefined ? undefined : expected.get(hello.token);
    if (claimed === undefined || hello.token === undefined) {
      throw new AirlockError("unauthorized", "no worker with this token was spawned, or it said hello already");
    }
    if (claimed.worker.pid !== pid) {
      throw new AirlockError("unauthorized", `process ${pid} is not the worker that this token was given to`);
    }
    expected.delete(hello.token);
    return claimed;
  }

  /** Welcomes the peer, with a descriptor lane where it can take one. */
  #sendWelcome(visitor: Visitor, session: Session, protocol: number, slot: Slot | undefined): void {
    const credit = session.keepsToCredit ? [features.credit] : [];
    if (session.hello.features.includes(features.line)) {
      const withLine = [features.segments, features.simplex].filter((each) => session.hello.features.includes(each));
      const welcome = this.#welcome(session, protocol, [features.line, ...withLine, ...credit], slot);
      session.lane = DescriptorLane.open(this.#options.libc, visitor.descriptor, welcome);
      if (session.lane !== undefined) return;
    }
    visitor.connection.send(this.#welcome(session, protocol, credit, slot));
  }

  #welcome(session: Session, protocol: number, shared: string[], slot: Slot | undefined): Frame {
    const { limits, sealsSegments } = this.#options;
    const memory = { sealed: sealsSegments, bytes_max: limits.segmentBytesMax };
    const welcome: Welcome = {
      protocol,
      features: shared,
      peer: session.peer,
      server: { version: this.#options.version, pid: process.pid },
      ...(slot && { pack: { name: slot.name, folder: slot.manifest.folder, ...entryOf(slot) }, host: slot.host.peer }),
      ...(session.keepsToCredit && { window: limits.creditWindowBytes }),
      ...(shared.includes(features.segments) && { memory }),
    };
    return buildFrame({ kind: FrameKind.welcome, peer: 0, call: 0, body: encode(welcome) });
  }

  /** Says why, then closes; a peer that doesn't read is not waited for. */
  #sayGoodbye(visitor: Visitor, cause: AirlockError): void {
    visitor.timer?.cancel();
    visitor.timer = this.#options.clock.after(lastWordsMs, () => visitor.connection.abort(cause));
    visitor.connection.send(buildFrame({ kind: FrameKind.error, peer: 0, call: 0, body: encode(errorToWire(cause)) }));
    visitor.connection.end(cause);
  }

  #closed(visitor: Visitor, cause: AirlockError | undefined): void {
    this.#visitors.delete(visitor);
    visitor.timer?.cancel();
    this.#tellOfClosed(visitor, cause);
    if (this.#visitors.size === 0) this.#onLastLeft();
  }

  #tellOfClosed({ session, worker, name, pid }: Visitor, cause: AirlockError | undefined): void {
    if (session === undefined) {
      if (cause !== undefined) this.#options.onEvent({ type: "peer_refused", pid, cause });
      return;
    }
    session.lane?.close();
    this.#options.onEvent({ type: "peer_closed", peer: session.peer, name, cause });
    if (worker === undefined) this.#options.onHostGone(session);
    else worker.connectionClosed(cause);
  }
}

function entryOf({ manifest: { entry } }: Slot): { entry?: WorkerEntry } {
  return entry ? { entry } : {};
}
