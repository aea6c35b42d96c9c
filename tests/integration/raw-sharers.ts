/** Raw hosts that take descriptors: over a socket that a test reads for itself, as Bun's would drop what comes along. */
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { features } from "../../src/transport/control.ts";
import { Passed, ReceivingLane } from "../../src/transport/descriptor-lane.ts";
import { type Libc, loadLibc } from "../../src/transport/libc.ts";
import { RawHost } from "./raw-peers.ts";
import { until, type World } from "./support.ts";

export const sharing = [features.line, features.segments, features.credit];

/** A connected socket that is looked at every millisecond; descriptors that come with its bytes are kept. */
class PolledSocket extends Duplex {
  readonly #libc: Libc;
  readonly #descriptor: number;
  lane: ReceivingLane | undefined;

  constructor(libc: Libc, path: string) {
    super({ allowHalfOpen: true });
    this.#libc = libc;
    this.#descriptor = libc.streamSocket();
    libc.connect(this.#descriptor, path);
    this.#poll();
  }

  #poll(): void {
    if (this.destroyed) return;
    try {
      this.#receiveAll();
    } catch (error) {
      this.destroy(error as Error);
      return;
    }
    setTimeout(() => this.#poll(), 1);
  }

  #receiveAll(): void {
    for (;;) {
      const buffer = new Uint8Array(65_536);
      const received = this.#libc.receive(this.#descriptor, buffer);
      if (received === undefined) return;
      if (received.descriptor !== undefined) this.lane = new ReceivingLane(this.#libc, received.descriptor);
      if (received.count === 0) return void this.destroy();
      this.push(buffer.subarray(0, received.count));
    }
  }

  override _read(): void {}

  override _write(chunk: Uint8Array, encoding: BufferEncoding, done: (error?: Error) => void): void {
    if (this.destroyed) return done();
    try {
      const rest = chunk.subarray(this.#libc.send(this.#descriptor, chunk));
      if (rest.byteLength === 0) done();
      else setTimeout(() => this._write(rest, encoding, done), 1);
    } catch {
      // What the server said before it closed the connection can still be read.
      done();
    }
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.lane?.close();
    this.#libc.close(this.#descriptor);
    done(error);
  }
}

/** A host that takes segments, and what it does with them. */
export class SharingHost extends RawHost {
  readonly #libc: Libc;
  readonly #polled: PolledSocket;
  /** Descriptors that it took off its lane. */
  readonly #taken = new Map<number, number>();

  private constructor(libc: Libc, polled: PolledSocket) {
    super(polled as unknown as Socket);
    this.#libc = libc;
    this.#polled = polled;
  }

  static async enterAs(world: World, named: readonly string[] = sharing): Promise<SharingHost> {
    const libc = loadLibc();
    const host = new SharingHost(libc, new PolledSocket(libc, world.socket));
    await host.enter({ features: named });
    return host;
  }

  get lane(): ReceivingLane {
    if (this.#polled.lane === undefined) throw new Error("it has no lane");
    return this.#polled.lane;
  }

  /** The descriptor of a segment, which it was passed; this host's to close. */
  descriptorOf(segment: number): number {
    const descriptor = this.#taken.get(segment) ?? this.lane.take(Passed.segment, segment);
    this.#taken.set(segment, descriptor);
    return descriptor;
  }

  /** Makes a segment, writes to it, and leaves it to the caller whether to seal it. */
  async make(text: string, fields: { bytes?: number; audience?: number } = {}): Promise<number> {
    const bytes = fields.bytes ?? 8 * 4096;
    const { segment } = (await this.control("make_segment", { ...fields, bytes })).body as { segment: number };
    const address = this.#libc.mapShared(this.descriptorOf(segment), bytes);
    this.#libc.viewOf(address, bytes).set(new TextEncoder().encode(text), 4096);
    this.#libc.unmap(address, bytes);
    return segment;
  }

  /** A segment that is sealed, and shared with a peer. */
  async share(peer: number, text: string, fields: { audience?: number } = {}): Promise<number> {
    const segment = await this.make(text, fields);
    await this.control("seal_segment", { segment });
    await this.control("share_segment", { segment, peer });
    return segment;
  }

  override hangUp(): void {
    for (const descriptor of this.#taken.values()) this.#libc.close(descriptor);
    this.#taken.clear();
    super.hangUp();
  }

  /** Hangs up, and waits until its connection is closed. */
  async leave(): Promise<void> {
    this.hangUp();
    await until(() => this.closed, "its connection is closed");
  }
}
