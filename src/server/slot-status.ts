/** How a slot and its worker are, as the server tells those who ask. Pure. */
import type { WorkerStatus } from "../transport/control.ts";
import type { Holdings } from "./segments.ts";
import type { HealthWatch } from "./workers/health.ts";
import type { LifeState } from "./workers/life.ts";

export interface SlotFigures {
  readonly peer: number;
  readonly state: LifeState;
  /** The worker, where there is one. */
  readonly worker: { readonly pid: number; readonly ageMs: number; readonly pss: number | null } | undefined;
  readonly health: HealthWatch | undefined;
  readonly owned: Holdings | undefined;
  /** Calls over the relay. */
  readonly relayed: number;
  /** Workers that there were, this one included. */
  readonly workers: number;
  readonly deaths: number;
  readonly lastExit: string | undefined;
  readonly log: string;
}

/** Calls under way, as far as is known: of those over a line, what the worker said last. */
export function callsOf(relayed: number, health: HealthWatch | undefined): number {
  return Math.max(relayed, health?.latest?.health.calls ?? 0);
}

export function workerStatus(slot: SlotFigures): WorkerStatus {
  const { worker, health, relayed } = slot;
  return {
    peer: slot.peer,
    state: slot.state,
    pid: worker?.pid ?? 0,
    calls: callsOf(relayed, health),
    relayed,
    age_ms: worker?.ageMs ?? 0,
    restarts: Math.max(0, slot.workers - 1),
    deaths: slot.deaths,
    last_exit: slot.lastExit ?? null,
    log: slot.log,
    pss_bytes: worker?.pss ?? null,
    answer_ms: health?.latest?.answerMs ?? null,
    silent_ms: health?.silentMs ?? 0,
    segments: slot.owned?.segments ?? 0,
    segment_bytes: slot.owned?.bytes ?? 0,
    health: health?.latest?.health ?? null,
  };
}
