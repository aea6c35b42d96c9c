/**
 * Every bound that a peer cannot push Airlock beyond, in one object; each field says what it bounds.
 *
 * Twin of `worker/src/comfy_airlock/wire/limits.py`, which holds the bounds that a Python peer checks itself.
 */
export interface Limits {
  /** Bytes of one frame after its header: bounds what a receiver buffers for a frame that never ends. */
  readonly frameBytesMax: number;
  /** Bytes of a hello, and of a call to the server: bounds what a stranger, or a small request, can make it buffer. */
  readonly controlBytesMax: number;
  /** Attachments of one frame: bounds the work that one header can ask for. */
  readonly frameAttachmentsMax: number;
  /** Bytes of the segments that one peer owns at once: bounds the memory that it can have the server name. */
  readonly segmentBytesMax: number;
  /** Segments that one peer owns at once: bounds the server's descriptors, of which each segment takes one. */
  readonly segmentsPerPeerMax: number;
  /** Nesting of arrays, maps and extensions in a body: bounds the decoder's stack. */
  readonly valueDepthMax: number;
  /** Bytes queued for a peer that does not read: past it, that peer's connection is closed. */
  readonly outboxBytesMax: number;
  /** Bytes that a peer which keeps to credit may have under way to each other one: bounds what waits for one that does not read. */
  readonly creditWindowBytes: number;
  /** Bytes of releases, which need no credit, that wait for one peer from one other. */
  readonly releaseBytesMax: number;
  /** Calls that one peer may have under way: bounds the call table. */
  readonly callsPerPeerMax: number;
  /** Connections at once: bounds descriptors. */
  readonly peersMax: number;
  /** Packs that one host may have open. */
  readonly packsPerHostMax: number;
  /** Milliseconds from connecting to a whole hello: bounds idle strangers. */
  readonly helloMsMax: number;
  /** Milliseconds from spawning a worker to its hello. */
  readonly workerStartMsMax: number;
  /** Milliseconds that a worker has to answer a call which was cancelled or is overdue: past it, the worker is ended. */
  readonly graceMs: number;
  /** Milliseconds that a worker may live on after its line to the host has ended: past it, it is ended too. */
  readonly lineEndMsMax: number;
  /** Milliseconds that running calls get when the server stops. */
  readonly drainMsMax: number;
  /** Milliseconds from a worker's first death to the next one's start; doubled with each further one, up to the second. */
  readonly backoffMsMin: number;
  readonly backoffMsMax: number;
  /** Deaths of a pack's workers within `deathsWindowMs` that have it held: bounds what a pack that can't live costs. */
  readonly deathsMax: number;
  readonly deathsWindowMs: number;
  /** Bytes of a pack's state that the server keeps for its next worker: bounds what a worker can have it hold. */
  readonly checkpointBytesMax: number;
  /** Milliseconds between two looks at how workers are. */
  readonly heartbeatMs: number;
  /** Milliseconds that a worker, or a host that is to leave a line, has to answer a question of the server's. */
  readonly questionMsMax: number;
}

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;

/** The limits in force unless `serve` is told otherwise. */
export const defaultLimits: Limits = {
  frameBytesMax: 16 * MiB,
  controlBytesMax: MiB,
  frameAttachmentsMax: 4096,
  segmentBytesMax: 64 * GiB,
  segmentsPerPeerMax: 4096,
  valueDepthMax: 128,
  outboxBytesMax: 1024 * MiB,
  creditWindowBytes: 4 * MiB,
  releaseBytesMax: 256 * KiB,
  callsPerPeerMax: 65_536,
  peersMax: 1024,
  packsPerHostMax: 512,
  helloMsMax: 5_000,
  workerStartMsMax: 60_000,
  graceMs: 10_000,
  lineEndMsMax: 1_000,
  drainMsMax: 10_000,
  backoffMsMin: 100,
  backoffMsMax: 10_000,
  deathsMax: 5,
  deathsWindowMs: 60_000,
  checkpointBytesMax: 16 * MiB,
  heartbeatMs: 10_000,
  questionMsMax: 5_000,
};
