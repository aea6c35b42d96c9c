/**
 * What a caller may ask of one call.
 */
import type { Progress } from "../transport/control.ts";

export interface CallOptions {
  /** Ends the wait; the worker is told. */
  readonly signal?: AbortSignal;
  /** Milliseconds after which the call ends with `deadline_exceeded`; by default, and at most, the pack's `call_timeout`. */
  readonly deadlineMs?: number;
  /** Told how the call goes, as where its environment is being made first. */
  readonly onProgress?: (progress: Progress) => void;
}
