/**
 * What goes into system calls and comes out of them: structures of Linux on 64-bit processors, and errors. Pure.
 */
import { getSystemErrorMap } from "node:util";
import { AirlockError } from "./errors.ts";
import type { Received } from "./libc.ts";

const AF_UNIX = 1;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x08;
const EINTR = 4;
const EAGAIN = 11;
/** Room for one descriptor beside a message, or two: CMSG_SPACE of either. */
export const controlBytes = 24;

/** A `struct msghdr` after `recvmsg`, and the control data that it leads to. */
interface ReceivedMessage {
  readonly header: BigUint64Array;
  readonly control: Uint8Array;
}

/** A system call that failed, in words; who has used up a limit is told which. */
export function systemCallFailed(call: string, errno: number): Error {
  const [name, meaning] = getSystemErrorMap().get(-errno) ?? [`errno ${errno}`, "unknown"];
  const message = `${call} failed: ${meaning} (${name})`;
  // What any other failure means depends on what it was for.
  if (name !== "EMFILE" && name !== "ENFILE") return new Error(message);
  const hint = "close what is not needed, or raise the limit (ulimit -n) of the process that says this";
  return new AirlockError("limit_exceeded", message, { hint });
}

/** Whether a call that failed says no more than that it would have had to wait. */
export function mustTryAgain(errno: number): boolean {
  return errno === EAGAIN || errno === EINTR;
}

/** A `struct sockaddr_un`: the family, and the path with its terminating zero. */
export function socketAddress(path: string): Uint8Array {
  const name = new TextEncoder().encode(path);
  const address = new Uint8Array(2 + name.byteLength + 1);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(name, 2);
  return address;
}

/** A `struct cmsghdr` with one descriptor or two: length with the header, level, type; then those, padded to a word. */
export function controlWith(descriptors: readonly number[]): Uint8Array {
  const control = new Uint8Array(controlBytes);
  const view = new DataView(control.buffer, control.byteOffset);
  view.setBigUint64(0, BigInt(16 + 4 * descriptors.length), true);
  view.setInt32(8, SOL_SOCKET, true);
  view.setInt32(12, SCM_RIGHTS, true);
  for (const [index, descriptor] of descriptors.entries()) view.setInt32(16 + 4 * index, descriptor, true);
  return control;
}

/** What the kernel wrote beside the bytes of a message. */
export function readControl({ header, control }: ReceivedMessage): Omit<Received, "count"> {
  const view = new DataView(control.buffer, control.byteOffset);
  const isThere = (header[5] ?? 0n) >= 20n && view.getInt32(8, true) === SOL_SOCKET;
  return {
    descriptor: isThere && view.getInt32(12, true) === SCM_RIGHTS ? view.getInt32(16, true) : undefined,
    isTruncated: (Number(header[6] ?? 0n) & MSG_CTRUNC) !== 0,
  };
}
