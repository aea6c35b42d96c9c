/**
 * What peers and the server say to each other outside of calls between peers: the hello, and the calls to peer 0.
 *
 * valibot schemas are the one description of these messages: the server validates what it receives with them, and both
 * sides take their types from them. PROTOCOL.md, "Control", explains each.
 */
import * as v from "valibot";
import { AirlockError } from "./errors.ts";

/** Protocol versions that this build speaks. */
export const protocolVersions = { min: 1, max: 1 } as const;

/** Abilities that a peer may name in its hello, and that hold on its connection if the server names them too. */
export const features = {
  /** The peer can receive descriptors: it gets a descriptor lane with its welcome, and lines over that. */
  line: "line",
  /** With `line`: the peer takes a line as two sockets, one that it reads and one that it writes to. */
  simplex: "simplex",
  /** The peer sends over the relay only as much as it was given credit for. */
  credit: "credit",
  /** With `line`: the peer can be passed segments, so frames to and from it may name blocks of them. */
  segments: "segments",
} as const;

/** The server itself, as a destination of frames. */
export const serverPeer = 0;

const u32 = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_ffff));
const text = (max: number) => v.pipe(v.string(), v.maxLength(max));

/** Whole pages of 4096 bytes, as many as a u32 can count. */
const segmentBytes = v.pipe(v.number(), v.integer(), v.minValue(4096), v.maxValue(2 ** 44 - 4096), v.multipleOf(4096));

const pythonSchema = v.object({ executable: text(4096), version: text(64) });

export const helloSchema = v.object({
  protocol: v.object({ min: u32, max: u32 }),
  features: v.optional(v.pipe(v.array(text(64)), v.maxLength(64)), []),
  role: v.picklist(["host", "worker"]),
  /** A worker's proof that it is the process that the server spawned. */
  token: v.optional(text(128)),
  /** What the peer calls itself in listings and logs. */
  name: v.optional(text(128), ""),
  pid: u32,
  /** The interpreter that the peer runs on, where it is Python. */
  python: v.optional(pythonSchema),
});
export type Hello = v.InferOutput<typeof helloSchema>;

/** What a pack's workers run besides its nodes: the host and they are to understand each other, the server looks not into it. */
const entrySchema = v.strictObject({
  /** A module of Python's that can be imported in the worker. */
  module: text(256),
  /** What it is handed. */
  settings: text(1024 * 1024),
});
export type WorkerEntry = v.InferOutput<typeof entrySchema>;

export const welcomeSchema = v.object({
  protocol: u32,
  features: v.array(v.string()),
  peer: u32,
  server: v.object({ version: v.string(), pid: u32 }),
  /** For a worker: the pack that it runs. */
  pack: v.optional(v.object({ name: v.string(), folder: v.string(), entry: v.exactOptional(entrySchema) })),
  /** For a worker: the number of the host that it works for. */
  host: v.optional(u32),
  /** With the feature `credit`: bytes that may be under way to each peer. */
  window: v.optional(u32),
  /** With the feature `segments`. */
  memory: v.optional(
    v.object({
      /** Whether the kernel keeps receivers of a sealed segment from writing to it. */
      sealed: v.boolean(),
      /** Bytes of the segments that this peer may own at once. */
      bytes_max: v.number(),
    }),
  ),
});
export type Welcome = v.InferOutput<typeof welcomeSchema>;

/** What a peer says of the memory that it shares, and that others share with it; in bytes, but for what is counted. */
export const memorySchema = v.object({
  /** Segments that it owns, their bytes, what of those is in use, and the most that there ever were. */
  segments: u32,
  segment_bytes: v.number(),
  used_bytes: v.number(),
  high_water_bytes: v.number(),
  /** Blocks of its own that others hold, and blocks of others that it holds. */
  leases_given: u32,
  leases_held: u32,
  /** Bytes of arrays that it has sent by a copy, and without one. */
  copied_bytes: v.number(),
  forwarded_bytes: v.number(),
});
export type MemoryReport = v.InferOutput<typeof memorySchema>;

/** Keys and values that somebody else checks. (valibot's own records take lists as well.) */
const table = v.custom<Record<string, unknown>>(
  (value) => typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Map),
  "must be a table",
);

/** Parameters of each control method, as the keyword arguments of a call to peer 0. */
export const controlParameters = {
  open: v.strictObject({
    folder: text(4096),
    /** In place of a file in the folder, with the keys of a pyisolate.yaml. */
    manifest: v.exactOptional(table),
    entry: v.exactOptional(entrySchema),
  }),
  prepare: v.strictObject({ pack: u32 }),
  close: v.strictObject({ pack: u32 }),
  ending: v.strictObject({ pack: u32, line: u32 }),
  overdue: v.strictObject({ pack: u32, line: u32 }),
  left_line: v.strictObject({ pack: u32, line: u32 }),
  retire: v.strictObject({ pack: u32 }),
  memory: v.strictObject({ report: v.nullable(memorySchema) }),
  status: v.strictObject({}),
  stats: v.strictObject({}),
  restart: v.strictObject({ name: text(200) }),
  stop: v.strictObject({ drain_ms: v.optional(u32) }),
  stack: v.strictObject({ pid: u32 }),
  nursery: v.strictObject({}),
  make_segment: v.strictObject({ bytes: segmentBytes, audience: v.optional(u32) }),
  seal_segment: v.strictObject({ segment: u32 }),
  share_segment: v.strictObject({ segment: u32, peer: u32 }),
  drop_segment: v.strictObject({ segment: u32 }),
} as const;
export type ControlMethod = keyof typeof controlParameters;
export type OpenParameters = v.InferOutput<typeof controlParameters.open>;

/** Methods that workers may call too. */
export const workersMethods: ReadonlySet<ControlMethod> = new Set([
  "nursery",
  "make_segment",
  "seal_segment",
  "share_segment",
  "drop_segment",
]);

/** What `nursery` answers: the path of the library by which torch makes tensors in shared memory, if there is one. */
export interface NurseryResult {
  readonly path: string | null;
}

/** What `make_segment` answers. */
export const segmentSchema = v.object({ segment: u32 });
export type SegmentResult = v.InferOutput<typeof segmentSchema>;

/** What the author of a pack says of one of its nodes. */
const nodeTraitsSchema = v.object({
  /** A call may be repeated, once, where the worker died under it. */
  idempotent: v.boolean(),
  /** Its calls all go to the worker that took the first one: it keeps something there between them. */
  sticky: v.boolean(),
});
export type NodeTraits = v.InferOutput<typeof nodeTraitsSchema>;
/** The time that every call to a pack has, whatever its caller gives it, and where that is set. */
const callTimeoutSchema = v.object({ ms: u32, source: v.string() });
export type CallTimeout = v.InferOutput<typeof callTimeoutSchema>;

export const openResultSchema = v.object({
  /** The peer number to send this pack's calls to. */
  pack: u32,
  /** The numbers of all the workers that it may have at once, the first of them being `pack`. */
  workers: v.pipe(v.array(u32), v.minLength(1)),
  /** Whose memory it may be passed: 0 where it shares with the host's other packs, else `pack`. */
  audience: u32,
  /** Every call is to have a process of its own. */
  fresh_process: v.boolean(),
  /** Nodes of which the manifest says something. */
  nodes: v.record(v.string(), nodeTraitsSchema),
  name: v.string(),
  folder: v.string(),
  warnings: v.array(v.string()),
  /** On a line the caller keeps it. */
  call_timeout: v.exactOptional(callTimeoutSchema),
});
export type OpenResult = v.InferOutput<typeof openResultSchema>;

export const prepareResultSchema = v.object({
  /** Path of the environment's interpreter. */
  python: v.string(),
  python_version: v.string(),
  /** Whether the environment was made by this call rather than found. */
  fresh: v.boolean(),
});
export type PrepareResult = v.InferOutput<typeof prepareResultSchema>;

/** What a worker's method `health` answers: counts of what goes on in it now. */
export const healthSchema = v.object({
  /** Calls under way or waiting for their turn. */
  calls: u32,
  /** Its objects that the host holds, streams among them. */
  held: u32,
  /** Objects of the host's that it holds. */
  holds: u32,
  /** Nodes that keep something between calls. */
  stateful: u32,
  /** Milliseconds since it last had a call. */
  idle_ms: v.number(),
  /** How late its event loop was, the last time it was looked at, in milliseconds; null where it runs none. */
  loop_lag_ms: v.nullable(v.number()),
  /** Null where it shares none yet. */
  memory: v.optional(v.nullable(memorySchema), null),
});
export type Health = v.InferOutput<typeof healthSchema>;

export const workerStates = ["starting", "ready", "busy", "draining", "stopping", "dead", "held"] as const;

const workerStatusSchema = v.object({
  /** The number that calls to it are sent to. */
  peer: u32,
  state: v.picklist(workerStates),
  /** 0 where there is none. */
  pid: u32,
  /** Calls under way, as far as is known: of those over a line, what it said last. */
  calls: u32,
  /** Of those, the ones over the relay. */
  relayed: u32,
  /** Milliseconds since it was spawned; 0 where there is none. */
  age_ms: v.number(),
  /** Workers that took its place before. */
  restarts: u32,
  /** Of those, how many nobody had told to end. */
  deaths: u32,
  /** How the last one ended, once one has. */
  last_exit: v.nullable(v.string()),
  log: v.string(),
  /** Memory that would be free without it (PSS); null where there is none, or the system does not say. */
  pss_bytes: v.nullable(v.number()),
  /** Milliseconds that it took to say how it is: long where native code holds the interpreter's lock. */
  answer_ms: v.nullable(v.number()),
  /** Milliseconds for which it has owed that answer by now. */
  silent_ms: v.number(),
  /** Segments that it owns, and their bytes, whether there is memory behind all of them or not. */
  segments: u32,
  segment_bytes: v.number(),
  health: v.nullable(healthSchema),
});
export type WorkerStatus = v.InferOutput<typeof workerStatusSchema>;

/** A limit of a pack's. */
const limitStatusSchema = v.object({
  name: v.string(),
  /** As a person reads it: `8 GiB`. */
  value: v.string(),
  /** Where it is set. */
  source: v.string(),
  enforced: v.boolean(),
  /** By what, or why not. */
  how: v.string(),
});
export type LimitStatus = v.InferOutput<typeof limitStatusSchema>;

const packStatusSchema = v.object({
  pack: u32,
  name: v.string(),
  folder: v.string(),
  host: v.object({ name: v.string(), pid: u32 }),
  limits: v.array(limitStatusSchema),
  /** Calls that wait for a worker. */
  waiting: u32,
  workers: v.array(workerStatusSchema),
});
export type PackStatus = v.InferOutput<typeof packStatusSchema>;

const hostStatusSchema = v.object({
  peer: u32,
  name: v.string(),
  pid: u32,
  /** What it owns of memory that is shared. */
  segments: u32,
  segment_bytes: v.number(),
  /** What it says itself, once it was asked; null where it shares none, or doesn't say. */
  memory: v.nullable(memorySchema),
});
export type HostStatus = v.InferOutput<typeof hostStatusSchema>;

export const statusSchema = v.object({
  server: v.object({ version: v.string(), pid: u32, socket: v.string() }),
  /** Those that have packs open. */
  hosts: v.array(hostStatusSchema),
  packs: v.array(packStatusSchema),
});
export type Status = v.InferOutput<typeof statusSchema>;

export const stackResultSchema = v.object({
  /** Name of the pack that the worker runs. */
  pack: v.string(),
  pid: u32,
  /** The Python stacks of its threads, as faulthandler prints them. */
  stack: v.string(),
});
export type StackResult = v.InferOutput<typeof stackResultSchema>;

/** What a worker's method `describe` answers; PROTOCOL.md, "Methods of a worker", explains the fields of a node. */
export const packDescriptionSchema = v.object({
  pid: u32,
  /** Version of the worker's Python. */
  python: v.string(),
  /** Versions of numpy and torch, null where they are not loaded. */
  modules: v.record(v.string(), v.nullable(v.string())),
  nodes: v.array(v.looseObject({ name: v.string(), is_async: v.boolean(), output_node: v.boolean() })),
  /** Nodes that could not be described. */
  broken: v.array(v.object({ name: v.string(), reason: v.string() })),
});
export type PackDescription = v.InferOutput<typeof packDescriptionSchema>;

/** What a PROGRESS frame of a call says. */
export const progressSchema = v.object({
  pack: v.string(),
  stage: v.string(),
  message: v.string(),
  /** How far it is, and of how much, where that is known. */
  value: v.exactOptional(v.number()),
  total: v.exactOptional(v.number()),
});
export type Progress = v.InferOutput<typeof progressSchema>;

/** Progress as the body of a PROGRESS frame; a tool's output that was cut to length may hold half a surrogate pair. */
export function progressToWire(progress: Progress): Progress {
  return { ...progress, pack: progress.pack.toWellFormed(), message: progress.message.toWellFormed() };
}

/** A call's body: method, positional and keyword arguments. */
export const callBodySchema = v.strictTuple([text(256), v.array(v.unknown()), v.record(v.string(), v.unknown())]);

/** An event's body: its name, and what it says. */
export const eventBodySchema = v.strictTuple([text(256), v.unknown()]);

/** Events whose names begin like this are Airlock's own: neither a pack nor its host may send or handle them. */
export const reservedEventPrefix = "airlock.";

/** Log records of a worker's; twin of `wire/event_names.py`. */
export const logEvent = `${reservedEventPrefix}log`;

export const logEventSchema = v.object({
  records: v.array(
    v.object({
      /** The logger's name. */
      name: v.string(),
      /** As Python counts: 10 debug, 20 info, 30 warning, 40 error, 50 critical. */
      level: v.number(),
      message: v.string(),
      /** Seconds since 1970. */
      created: v.number(),
      /** Where it was logged: file, line and function. */
      path: v.string(),
      line: v.number(),
      function: v.nullable(v.string()),
      thread: v.nullable(v.string()),
      /** The worker's process id. */
      pid: u32,
      /** The traceback of the exception that was logged. */
      exception: v.exactOptional(v.string()),
    }),
  ),
  /** How many records were dropped since the last ones, because too many waited; the log file has them. */
  dropped: v.number(),
});
/** What a pack logged by Python's `logging`. */
export type LogRecord = v.InferOutput<typeof logEventSchema>["records"][number];

/** What the server's event `worker_ended` says. */
export const workerEndedSchema = v.object({
  /** The number that the host knows the pack by. */
  pack: u32,
  /** Which of its workers: the number that a line to it has. */
  number: u32,
});

/** What the server's event `segment_gone` says: nobody can be passed this segment any more. */
export const segmentGoneSchema = v.object({ segment: u32 });

/** What the server's events `leave_line` and `use_line` say. */
export const lineEventSchema = v.object({ pack: u32, line: u32 });

/**
 * Validates a message against its schema.
 *
 * @param what the message's name, for the error.
 * @throws AirlockError `bad_request`, naming each field that is wrong.
 */
export function validate<S extends v.GenericSchema>(schema: S, value: unknown, what: string): v.InferOutput<S> {
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const problems = result.issues.slice(0, 5).map((issue) => `${v.getDotPath(issue) ?? what}: ${issue.message}`);
  throw new AirlockError("bad_request", `malformed ${what}: ${problems.join("; ")}`);
}
