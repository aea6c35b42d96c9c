/** Peers whose every byte a test decides, over real sockets: hosts, and workers by way of the puppet pack. */
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { encode } from "../../src/transport/codec.ts";
import { features, type Welcome } from "../../src/transport/control.ts";
import { Passed } from "../../src/transport/descriptor-lane.ts";
import { buildFrame, type FrameFields, FrameKind } from "../../src/transport/frame.ts";
import { FrameAssembler } from "../../src/transport/frame-assembler.ts";
import { defaultLimits } from "../../src/transport/limits.ts";
import { read, type Sent } from "../support/peers.ts";
import { packs, until, type World } from "./support.ts";

type Kind = keyof typeof FrameKind;

/** The bytes of a frame with any value as its body. */
export function bytesOf(
  kind: Kind,
  peer: number,
  call: number,
  value?: unknown,
  rest: Partial<FrameFields> = {},
): Uint8Array {
  const body = value === undefined ? {} : { body: encode(value) };
  return buildFrame({ kind: FrameKind[kind], peer, call, ...body, ...rest });
}

export function helloBytes(fields: object = {}): Uint8Array {
  const hello = { protocol: { min: 1, max: 1 }, features: [], role: "host", name: "raw", pid: process.pid };
  return bytesOf("hello", 0, 0, { ...hello, ...fields });
}

/** One end of a socket, and the frames that have come out of it. */
export class RawPeer {
  readonly #socket: Socket;
  readonly heard: Sent[] = [];
  closed = false;

  constructor(socket: Socket, early: Uint8Array = new Uint8Array(0)) {
    this.#socket = socket;
    const assembler = new FrameAssembler(defaultLimits);
    const take = (chunk: Uint8Array) => assembler.push(chunk, (frame) => this.heard.push(read(frame)));
    take(early);
    socket.on("data", take);
    socket.resume();
    socket.on("error", () => undefined);
    socket.on("close", () => {
      this.closed = true;
    });
  }

  static at(path: string): RawPeer {
    return new RawPeer(connect(path));
  }

  /** Writes bytes that need be no frames. */
  write(...bytes: readonly Uint8Array[]): void {
    this.#socket.write(Buffer.concat(bytes));
  }

  send(kind: Kind, peer: number, call: number, value?: unknown, rest?: Partial<FrameFields>): void {
    this.write(bytesOf(kind, peer, call, value, rest));
  }

  /** Bytes that were written and that the other side has not taken. */
  get unsentBytes(): number {
    return this.#socket.writableLength;
  }

  stopReading(): void {
    this.#socket.pause();
  }

  readOn(): void {
    this.#socket.resume();
  }

  /** Sends no more, and goes on reading. */
  end(): void {
    this.#socket.end();
  }

  hangUp(): void {
    this.#socket.destroy();
  }

  /** Waits for the first frame that is like this, and takes it out of what was heard. */
  async hear(like: Partial<Sent>): Promise<Sent> {
    const isLike = (sent: Sent) => Object.entries(like).every(([key, value]) => sent[key as keyof Sent] === value);
    await until(() => this.heard.some(isLike), `it hears ${JSON.stringify(like)}`);
    const [found] = this.heard.splice(this.heard.findIndex(isLike), 1);
    return found as Sent;
  }

  /** Waits until the connection is closed, and returns the error that was said last. */
  async refusal(): Promise<{ readonly code?: string; readonly message?: string; readonly hint?: string }> {
    await until(() => this.closed, "its connection is closed");
    const last = this.heard.at(-1);
    return last?.kind === "error" && last.call === 0 ? (last.body as object) : {};
  }
}

/** A peer that said hello, and what it was welcomed with. */
class Welcomed extends RawPeer {
  #lastCall = 0xf000_0000;
  number = 0;
  window = 0;
  memory: Welcome["memory"];
  features: readonly string[] = [];
  /** The number of a worker's host. */
  host = 0;

  /** Calls the server, by a number that tests do not use. */
  async control(method: string, parameters: object): Promise<Sent> {
    this.#lastCall += 1;
    this.send("call", 0, this.#lastCall, [method, [], parameters]);
    return await this.hear({ peer: 0, call: this.#lastCall });
  }

  /** Says hello, and reads the welcome. */
  async enter(fields: object): Promise<void> {
    this.write(helloBytes(fields));
    const welcome = (await this.hear({ kind: "welcome" })).body as Welcome;
    this.number = welcome.peer;
    this.window = welcome.window as number;
    this.memory = welcome.memory;
    this.features = welcome.features;
    this.host = welcome.host ?? 0;
  }
}

/** A host that was let in. */
export class RawHost extends Welcomed {
  static async join(world: World, named: readonly string[] = [features.credit]): Promise<RawHost> {
    const host = new RawHost(connect(world.socket));
    await host.enter({ features: named });
    return host;
  }

  /** Opens a test's pack, and returns its number. */
  async open(name: string): Promise<number> {
    return ((await this.control("open", { folder: join(packs, name) })).body as { pack: number }).pack;
  }
}

/** A worker that was let in: a puppet's other end. */
export class RawWorker extends Welcomed {
  /** What came over its lane, for as long as its process lives. */
  lane: PuppetLane | undefined;
}

/** A segment that a puppet was passed. */
interface PassedToPuppet {
  readonly number: number;
  /** Where other processes of the user can open it. */
  readonly path: string;
}

/** What a puppet tells of the segments on its descriptor lane. */
export class PuppetLane {
  readonly #passed: PassedToPuppet[] = [];

  constructor(socket: Socket) {
    let [pid, text] = ["", ""];
    socket.on("data", (chunk) => {
      const lines = (text + chunk.toString()).split("\n");
      text = lines.pop() ?? "";
      for (const line of lines) {
        const [what = "", number, descriptor] = line.split(" ");
        if (pid === "") pid = what;
        else if (Number(what) === Passed.segment) {
          this.#passed.push({ number: Number(number), path: `/proc/${pid}/fd/${descriptor}` });
        }
      }
    });
  }

  /** The next segment that it was passed. */
  async next(): Promise<PassedToPuppet> {
    await until(() => this.#passed.length > 0, "the puppet is passed a segment");
    return this.#passed.shift() as PassedToPuppet;
  }

  /** How many it was passed that nobody has looked at. */
  get count(): number {
    return this.#passed.length;
  }
}

/** Where puppets connect to, and the workers that they become. To be disposed of. */
export class Puppets implements Disposable {
  readonly #path: string;
  readonly #listener = createServer((socket) => {
    this.#all.push(socket);
    this.#arrived.push(socket);
  });
  readonly #lanesPath: string;
  readonly #laneListener = createServer((socket) => {
    this.#all.push(socket);
    this.#lanes.push(new PuppetLane(socket));
  });
  readonly #all: Socket[] = [];
  readonly #arrived: Socket[] = [];
  readonly #lanes: PuppetLane[] = [];

  constructor(world: World) {
    this.#path = join(world.folder, "puppets.sock");
    this.#lanesPath = join(world.folder, "lanes.sock");
    this.#listener.listen(this.#path);
    this.#laneListener.listen(this.#lanesPath);
  }

  /** What the server has to tell its workers. */
  get variables(): Readonly<Record<string, string>> {
    return { PUPPET_STRINGS: this.#path, PUPPET_LANES: this.#lanesPath };
  }

  /** The next puppet that was spawned, once it was welcomed as a worker. */
  async next(named: readonly string[] = [features.credit]): Promise<RawWorker> {
    await until(() => this.#arrived.length > 0, "a puppet is spawned");
    const socket = this.#arrived.shift() as Socket;
    const { token, rest } = await firstLine(socket);
    const worker = new RawWorker(socket, rest);
    await worker.enter({ role: "worker", features: named, token });
    if (!worker.features.includes(features.line)) return worker;
    await until(() => this.#lanes.length > 0, "the puppet has its lane");
    worker.lane = this.#lanes.shift();
    return worker;
  }

  [Symbol.dispose](): void {
    this.#listener.close();
    this.#laneListener.close();
    for (const socket of this.#all) socket.destroy();
  }
}

async function firstLine(socket: Socket): Promise<{ token: string; rest: Buffer }> {
  const chunk = await new Promise<Buffer>((resolve) => socket.once("data", resolve));
  // What comes before somebody listens again would be lost.
  socket.pause();
  const end = chunk.indexOf(10);
  return { token: chunk.toString("latin1", 0, end), rest: chunk.subarray(end + 1) };
}

/** The error's code that a frame's body is, if it is one. */
export function codeIn(sent: Sent): unknown {
  return (sent.body as { code?: unknown } | null)?.code;
}

/** Where one call of a host's is with a worker that a test speaks for. */
export interface CallUnderWay {
  readonly host: RawHost;
  readonly pack: number;
  readonly worker: RawWorker;
  /** The number by which the worker knows the host's call 1. */
  readonly call: number;
}

/** A host of its own calls the puppet pack, and its worker has heard that. The world serves by `puppets.variables`. */
export async function callPuppet(world: World, puppets: Puppets): Promise<CallUnderWay> {
  const host = await RawHost.join(world);
  const pack = await host.open("puppet");
  host.send("call", pack, 1, ["run", ["Anything"], {}]);
  const worker = await puppets.next();
  const { call } = await worker.hear({ kind: "call" });
  return { host, pack, worker, call };
}
