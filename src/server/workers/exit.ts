/**
 * How a process ended, in the words that a person looks up. Pure.
 */
import { constants } from "node:os";
import type { Exceeded } from "./limits/mechanism.ts";

export interface ProcessExit {
  readonly code: number | null;
  readonly signal: string | null;
  /** The limit that it was ended for, where it was one. */
  readonly exceeded?: Exceeded;
  /** Whose doing a SIGKILL was, as far as that can be known. */
  readonly killer?: Killer | undefined;
}

/** The server itself; probably the kernel, which ended some process for want of memory meanwhile; or none of them. */
export type Killer = "server" | "memory" | "somebody";

/** What the common signals mean when they end a node pack. */
const signalMeanings: Readonly<Record<string, string>> = {
  SIGSEGV: "segmentation fault",
  SIGABRT: "aborted by a native library",
  SIGBUS: "bus error",
  SIGILL: "illegal instruction: a library built for another processor",
  SIGFPE: "arithmetic fault in native code",
  SIGKILL: "killed, by hand or because memory ran out",
};

const killerMeanings: Readonly<Record<Killer, string>> = {
  server: "killed by the server",
  memory: "probably out of memory: the kernel ended a process for that meanwhile",
  somebody: "killed by somebody: the kernel ended no process for want of memory meanwhile",
};

/** `exit code 3`, `killed by SIGSEGV (segmentation fault)`, `over its limit: memory 8.3 GiB of 8 GiB`. */
export function describeExit(exit: ProcessExit): string {
  if (exit.exceeded !== undefined) return `over its limit: ${exit.exceeded.what}`;
  // A shell's convention, which wrappers of an interpreter pass on: 128 + the signal's number.
  const signal = exit.signal ?? signalOfCode(exit.code);
  if (signal === undefined) return `exit code ${exit.code ?? "unknown"}`;
  const byKiller = exit.killer === undefined ? undefined : killerMeanings[exit.killer];
  const meaning = (signal === "SIGKILL" ? byKiller : undefined) ?? signalMeanings[signal];
  return meaning === undefined ? `killed by ${signal}` : `killed by ${signal} (${meaning})`;
}

function signalOfCode(code: number | null): string | undefined {
  return code === null || code <= 128 ? undefined : signalName(code - 128);
}

/** `SIGKILL` for 9; undefined where the number has no name. */
export function signalName(number: number): string | undefined {
  return Object.entries(constants.signals).find(([, each]) => each === number)?.[0];
}
