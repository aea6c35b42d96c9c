/**
 * This process and one other, for as long as that runs: what each holds of the other, and the ways between them.
 *
 * Calls go over the line, where there is one, and over the relay otherwise; a call made for another one goes the way
 * that came. Invariant: a pair ends once, and with it every reference. What comes after is another pair's.
 */
import type { Clock } from "../transport/clock.ts";
import { decode, encode } from "../transport/codec.ts";
import { type CallTimeout, callBodySchema, eventBodySchema, validate } from "../transport/control.ts";
import { AirlockError } from "../transport/errors.ts";
import { buildFrame, type FrameFields, FrameKind } from "../transport/frame.ts";
import type { Limits } from "../transport/limits.ts";
import type { CallOptions } from "./call-options.ts";
import { type Channel, fieldsOf, type Recipient } from "./channel.ts";
import { callInProgress, type IncomingCall, runWithin } from "./incoming-call.ts";
import type { LeaseSender, PairLeases } from "./memory/pair-leases.ts";
import { type OutgoingBody, unlessAborted, writeBody } from "./outgoing-body.ts";
import { BlocksRefused, Unsent } from "./outgoing-calls.ts";
import { type ReadBody, type ReceivedBody, readBody } from "./received-body.ts";
import { type ReferenceIds, References } from "./references.ts";

/** What a pair can be called for, besides what its references are for. */
export type Methods = ReadonlyMap<string, (args: readonly unknown[], keywords: Record<string, unknown>) => unknown>;

export interface PairOptions {
  /** The other one's number, as the frames name it. */
  readonly peer: number;
  /** This side's name for it, for errors. */
  readonly name: string;
  readonly relay: Channel;
  /** The references of whoever is at the relay's other end by now: calls that were made of a process may outlive it there. */
  relayReferences(): References;
  /** Their leases, likewise. */
  relayLeases?(): PairLeases | undefined;
  readonly clock: Clock;
  readonly limits: Limits;
  readonly ids: ReferenceIds;
  readonly methods: Methods;
  /** The time that calls to the other one have: on the relay the server keeps it, on a line this side. */
  callTimeout?(): CallTimeout | undefined;
  onEvent(name: string, value: unknown): void;
  /** Makes the leases between this process and the other one; missing where they share no memory. */
  readonly leases?: ((send: LeaseSender) => PairLeases) | undefined;
  /** Makes a call of one of the other one's objects, and counts it. */
  readonly counted?: <T>(call: () => Promise<T>) => Promise<T>;
  /** Told when objects of the other one's are not held any more. */
  readonly onReleased?: () => void;
}

export interface PairCall<T> {
  readonly method: string;
  readonly args: readonly unknown[];
  readonly keywords: Record<string, unknown>;
  readonly options: CallOptions;
  /** How a result is read, on its arrival. */
  readonly read: ReadBody<T>;
  /** Whatever must stay reachable until it is answered. */
  readonly keep?: object;
  /** Told whether the request holds references, before it is sent. */
  readonly onEncoded?: (hasReferences: boolean) => void;
}

export class Pair implements Recipient {
  readonly references: References;
  readonly leases: PairLeases | undefined;
  readonly #options: PairOptions;
  #line: Channel | undefined;
  /** Settles when the last event is written that waits for memory, or for another one that does. */
  #lastEvent: Promise<void> | undefined;

  constructor(options: PairOptions) {
    this.#options = options;
    const { counted = (call) => call() } = options;
    this.leases = options.leases?.({
      sendReturn: (attachments) => this.#tell({ kind: FrameKind.return, attachments }),
      sendReclaim: () => this.#tell({ kind: FrameKind.reclaim }),
    });
    this.references = new References({
      ids: options.ids,
      clock: options.clock,
      callOwner: (method, args, keywords, standIn, callOptions) =>
        counted(() => this.call({ method, args, keywords, options: callOptions, read: decode, keep: standIn })),
      release: (route, counts) => {
        this.#release(route, counts);
        options.onReleased?.();
      },
    });
  }

  get name(): string {
    return this.#options.name;
  }

  /** Has calls go over a line from now on, or over the relay. */
  useLine(line: Channel | undefined): void {
    this.#line = line;
  }

  /**
   * Calls a method of the other one.
   *
   * @throws AirlockError as it answers, or what keeps the call from being made; Unsent where the way ended before that;
   * or a signal's reason.
   */
  async call<T>(call: PairCall<T>): Promise<T> {
    try {
      return await this.#call(call);
    } catch (error) {
      if (!(error instanceof BlocksRefused)) throw error;
      this.leases?.refuse();
      return await this.#call(call);
    }
  }

  async #call<T>({ method, args, keywords, options, read, keep, onEncoded }: PairCall<T>): Promise<T> {
    const { limits, peer, name } = this.#options;
    const { signal, deadlineMs, onProgress } = options;
    const within = callInProgress();
    const parent = within?.nearestOf(this);
    const channel = this.#channelFor(parent);
    const isRelay = channel === this.#options.relay;
    const writing = writeBody([method, args, keywords], () => this.references.draft(channel), this.leases);
    const begunMs = this.#options.clock.nowMs();
    const body = writing instanceof Promise ? await unlessAborted(writing, [signal, within?.signal]) : writing;
    const waitedMs = writing instanceof Promise ? this.#options.clock.nowMs() - begunMs : 0;
    try {
      this.#checkPlaced(body);
      onEncoded?.(body.hasReferences);
      this.leases?.flush();
      return await channel.calls.call({
        peer,
        body: body.parts,
        hasReferences: body.hasReferences,
        placed: body.placed,
        bytesMax: limits.frameBytesMax,
        parent,
        within,
        signal,
        deadlineMs: deadlineMs === undefined ? undefined : Math.max(0, deadlineMs - waitedMs),
        callTimeout: isRelay ? undefined : this.#options.callTimeout?.(),
        onProgress,
        onLeft: () => body.sent(),
        onUndelivered: () => body.draft.returned(),
        references: () => (isRelay ? this.#options.relayReferences() : this.references),
        leases: () => (isRelay ? this.#options.relayLeases?.() : this.leases),
        read,
        keep: [body, keep],
        pack: name,
      });
    } finally {
      body.undo();
    }
  }

  /** The other process may have ended while memory was waited for: then its leases are nobody's. */
  #checkPlaced({ placed }: OutgoingBody): void {
    if (placed?.pair.isEnded) throw new Unsent("the worker ended before the call was sent");
  }

  /** The way that the parent came, the line, or the relay. */
  #channelFor(parent: IncomingCall | undefined): Channel {
    const { relay } = this.#options;
    return parent !== undefined && parent.channel !== this.#line ? relay : (this.#line ?? relay);
  }

  /** Tells the other one something that it does not answer. Settles once that has left. */
  async emit(name: string, value: unknown): Promise<void> {
    const channel = this.#channelFor(undefined);
    // Nobody answers an event, so on the relay nobody would say that it reached nobody.
    const leases = channel === this.#options.relay ? undefined : this.leases;
    const writing = writeBody([name, value], () => this.references.draft(channel), leases);
    const before = this.#lastEvent;
    if (before === undefined && !(writing instanceof Promise)) return await this.#sendEvent(channel, writing);
    // What is told later does not overtake an event that waits for memory.
    const written = Promise.allSettled([before, writing]).then(() => {
      if (this.#lastEvent === written) this.#lastEvent = undefined;
    });
    this.#lastEvent = written;
    await written;
    await this.#sendEvent(channel, await writing);
  }

  async #sendEvent(channel: Channel, body: OutgoingBody): Promise<void> {
    try {
      this.#checkPlaced(body);
      this.leases?.flush();
      const { peer, limits } = this.#options;
      const fields = { kind: FrameKind.event, peer, call: 0, ...fieldsOf(body) };
      await channel.send(buildFrame(fields, limits.frameBytesMax), () => body.sent());
    } finally {
      body.undo();
    }
  }

  /** Sends a frame about leases, whichever way: what they count does not depend on it. */
  #tell(fields: Pick<FrameFields, "kind" | "attachments">): void {
    const { relay, peer } = this.#options;
    void (this.#line ?? relay).send(buildFrame({ ...fields, peer, call: 0 }), () => undefined);
  }

  #release(route: object | undefined, counts: readonly number[]): void {
    const { relay, peer } = this.#options;
    const channel = route === relay ? relay : (this.#line ?? relay);
    const body = encode([...counts]);
    void channel.send(buildFrame({ kind: FrameKind.release, peer, call: 0, body }), () => undefined);
  }

  receiveCall(call: IncomingCall, body: ReceivedBody): void {
    try {
      const decoded = readBody(body, this.references, this.leases, decode);
      const [method, args, keywords] = validate(callBodySchema, decoded, "call");
      void this.#carryOut(call, method, args, keywords);
    } catch (error) {
      call.fail(error);
    }
  }

  async #carryOut(
    call: IncomingCall,
    method: string,
    args: readonly unknown[],
    keywords: Record<string, unknown>,
  ): Promise<void> {
    let body: OutgoingBody | undefined;
    try {
      const value = await runWithin(call, async () => await this.#perform(method, args, keywords));
      const writing = writeBody(value, () => this.references.draft(call.channel), this.leases);
      body = writing instanceof Promise ? await writing : writing;
      this.#checkPlaced(body);
      this.leases?.flush();
      if (!call.result(body)) body.undo();
    } catch (error) {
      body?.undo();
      call.fail(error);
    }
  }

  #perform(method: string, args: readonly unknown[], keywords: Record<string, unknown>): unknown {
    if (method.startsWith("ref_")) return this.references.perform(method, args, keywords);
    const own = this.#options.methods.get(method);
    if (own !== undefined) return own(args, keywords);
    throw new AirlockError("bad_request", `this side has no method ${JSON.stringify(method)}`);
  }

  /** An event that makes no sense is its sender's loss. */
  receiveEvent(body: ReceivedBody): void {
    let event: readonly [string, unknown];
    try {
      event = validate(eventBodySchema, readBody(body, this.references, this.leases, decode), "event");
    } catch {
      return;
    }
    this.#options.onEvent(...event);
  }

  /** The other process is gone. */
  end(reason: AirlockError): void {
    this.#line = undefined;
    this.references.end(reason);
    this.leases?.end();
  }
}
