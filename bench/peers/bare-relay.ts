/**
 * The floor of a relay on Bun: one host, one worker, frames passed on by their header in runs as long as they come.
 * `bun bare-relay.ts SOCKET WORKER`; listens until standard input ends.
 *
 * Rewrites peer and call as PROTOCOL.md says, and does nothing else that the server must: no limits, no deadlines, no
 * queue for a peer that doesn't read, and no question who connects.
 */
import type { Socket } from "bun";
import { decode, encode } from "../../src/transport/codec.ts";
import { helloSchema, serverPeer, validate } from "../../src/transport/control.ts";
import {
  buildFrame,
  type Frame,
  FrameKind,
  frameBody,
  frameCall,
  frameKind,
  frameLength,
  framePeer,
  headerBytes,
  setFrameCall,
  setFramePeer,
} from "../../src/transport/frame.ts";

interface Peer {
  readonly number: number;
  readonly socket: Socket<Peer>;
  /** The beginning of a frame whose end has not arrived. */
  rest: Buffer;
}

const [socketPath = "", workerProgram = ""] = Bun.argv.slice(2);
/** The callers' own numbers, by this relay's. */
const calls = new Map<number, number>();
let lastCall = 0;
let host: Peer | undefined;
let worker: Peer | undefined;

/** Where a frame goes on to, its header rewritten; undefined where it was for the relay itself. */
function route(from: Peer, frame: Frame): Peer | undefined {
  const kind = frameKind(frame);
  if (kind === FrameKind.hello) return void letIn(from, frame);
  if (kind === FrameKind.call && framePeer(frame) === serverPeer) return void answerOpen(from, frame);
  setFramePeer(frame, from.number);
  const call = frameCall(frame);
  if (kind === FrameKind.call) {
    lastCall += 1;
    calls.set(lastCall, call);
    setFrameCall(frame, lastCall);
    return worker;
  }
  setFrameCall(frame, calls.get(call) ?? 0);
  calls.delete(call);
  return host;
}

function letIn(peer: Peer, frame: Frame): void {
  const { role } = validate(helloSchema, decode(frameBody(frame)), "hello");
  if (role === "host") host = peer;
  else worker = peer;
  const body = encode({ protocol: 1, features: [], peer: peer.number, server: { version: "bare", pid: process.pid } });
  pass(peer, buildFrame({ kind: FrameKind.welcome, peer: serverPeer, call: 0, body }));
  if (role === "worker") console.log(socketPath);
}

function answerOpen(peer: Peer, frame: Frame): void {
  const body = encode({ pack: worker?.number, name: "bare", folder: "", warnings: [] });
  pass(peer, buildFrame({ kind: FrameKind.result, peer: serverPeer, call: frameCall(frame), body }));
}

function pass(to: Peer, bytes: Uint8Array): void {
  if (to.socket.write(bytes) < bytes.byteLength) throw new Error("a peer does not read, and this relay has no queue");
}

function receive(from: Peer, chunk: Buffer): void {
  const bytes = from.rest.byteLength > 0 ? Buffer.concat([from.rest, chunk]) : chunk;
  let [at, runFrom] = [0, 0];
  let runTo: Peer | undefined;
  while (bytes.byteLength - at >= headerBytes) {
    const end = at + headerBytes + frameLength(bytes.subarray(at, at + headerBytes));
    if (end > bytes.byteLength) break;
    const to = route(from, bytes.subarray(at, end));
    if (to !== runTo) {
      if (runTo !== undefined) pass(runTo, bytes.subarray(runFrom, at));
      [runTo, runFrom] = [to, at];
    }
    at = end;
  }
  if (runTo !== undefined) pass(runTo, bytes.subarray(runFrom, at));
  from.rest = Buffer.from(bytes.subarray(at));
}

let lastPeer = 0;
Bun.listen<Peer>({
  unix: socketPath,
  socket: {
    open: (socket) => {
      lastPeer += 1;
      socket.data = { number: lastPeer, socket, rest: Buffer.alloc(0) };
    },
    data: (socket, chunk) => receive(socket.data, chunk),
  },
});
const env = { ...process.env, AIRLOCK_SOCKET: socketPath, AIRLOCK_TOKEN: "none is asked for" };
const child = Bun.spawn([workerProgram], { env, stdio: ["ignore", "inherit", "inherit"] });
for await (const _ of Bun.stdin.stream());
child.kill();
process.exit(0);
