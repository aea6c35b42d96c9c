/**
 * The life of one worker slot as a state machine: what may happen when, and what follows. Pure: it is told the time.
 *
 * A slot has one worker at a time. Invariants: a worker is started out of `dead` alone, and not before the back-off of the
 * deaths before it is over; a slot whose workers keep dying is `held`, and leaves that state by being released alone.
 * ARCHITECTURE.md, "A worker's life", draws it.
 */

export type LifeState =
  /** There is no worker. */
  | "dead"
  /** Its environment is being made, or its process has not said hello. */
  | "starting"
  | "ready"
  /** Calls are under way. */
  | "busy"
  /** It finishes what it has, and is given no more. */
  | "draining"
  /** It was told to end, or ends by itself. */
  | "stopping"
  /** There is no worker, and none is started: too many have died. */
  | "held";

export interface Life {
  readonly state: LifeState;
  /** When it came into this state. */
  readonly sinceMs: number;
  /** When workers died that nobody had told to end, the latest last; those that are too long ago are left out. */
  readonly deathsAtMs: readonly number[];
}

export type LifeEvent =
  /** A call waits for a worker. */
  | { readonly type: "wanted" }
  /** The worker said hello. */
  | { readonly type: "admitted" }
  /** So many calls are under way. */
  | { readonly type: "loaded"; readonly calls: number }
  | { readonly type: "draining" }
  /** It was draining, and is needed after all. */
  | { readonly type: "resumed" }
  | { readonly type: "stopping" }
  /** It is gone, or could not be started; a death where neither we nor its host wanted that. */
  | { readonly type: "ended"; readonly isDeath: boolean }
  /** Somebody said that workers may be started again. */
  | { readonly type: "released" };

export interface LifeRules {
  /** Milliseconds from a first death to the next start; doubles with each further one. */
  readonly backoffMsMin: number;
  readonly backoffMsMax: number;
  /** So many deaths within so long have the slot held. */
  readonly deathsMax: number;
  readonly deathsWindowMs: number;
}

/** A slot that never had a worker. */
export const unborn: Life = { state: "dead", sinceMs: 0, deathsAtMs: [] };

/** The life after an event. One that means nothing in this state changes nothing: news may cross. */
export function step(life: Life, event: LifeEvent, nowMs: number, rules: LifeRules): Life {
  const next = nextState(life, event, nowMs, rules);
  if (event.type === "released") return { state: next, sinceMs: sinceOf(life, next, nowMs), deathsAtMs: [] };
  const deathsAtMs =
    event.type === "ended" && event.isDeath && hasWorker(life)
      ? recent([...life.deathsAtMs, nowMs], nowMs, rules)
      : life.deathsAtMs;
  if (next === life.state && deathsAtMs === life.deathsAtMs) return life;
  return { state: next, sinceMs: sinceOf(life, next, nowMs), deathsAtMs };
}

function sinceOf(life: Life, next: LifeState, nowMs: number): number {
  return next === life.state ? life.sinceMs : nowMs;
}

/** Events that mean the same at any time: the state that each leads to, by the state that it finds. */
const plainly: Record<
  "admitted" | "draining" | "resumed" | "stopping" | "released",
  Partial<Record<LifeState, LifeState>>
> = {
  admitted: { starting: "ready" },
  draining: { ready: "draining", busy: "draining" },
  resumed: { draining: "ready" },
  stopping: { starting: "stopping", ready: "stopping", busy: "stopping", draining: "stopping" },
  released: { held: "dead" },
};

function nextState(life: Life, event: LifeEvent, nowMs: number, rules: LifeRules): LifeState {
  const { state } = life;
  switch (event.type) {
    case "wanted":
      return state === "dead" && nowMs >= startNotBeforeMs(life, nowMs, rules) ? "starting" : state;
    case "loaded":
      return takesCalls(life) ? busyOrReady(event.calls) : state;
    case "ended":
      return hasWorker(life) ? afterEnd(life, event.isDeath, nowMs, rules) : state;
    default:
      return plainly[event.type][state] ?? state;
  }
}

function busyOrReady(calls: number): LifeState {
  return calls > 0 ? "busy" : "ready";
}

function afterEnd(life: Life, isDeath: boolean, nowMs: number, rules: LifeRules): LifeState {
  const isOneTooMany = recent(life.deathsAtMs, nowMs, rules).length + 1 >= rules.deathsMax;
  return isDeath && isOneTooMany ? "held" : "dead";
}

/** Whether a worker is there that calls may be given to. */
export function takesCalls(life: Life): boolean {
  return life.state === "ready" || life.state === "busy";
}

/** Whether there is a worker, or one is being started. */
export function hasWorker(life: Life): boolean {
  return life.state !== "dead" && life.state !== "held";
}

/** The time before which no worker is started. */
export function startNotBeforeMs(life: Life, nowMs: number, rules: LifeRules): number {
  const deaths = recent(life.deathsAtMs, nowMs, rules);
  const last = deaths.at(-1);
  if (last === undefined) return 0;
  return last + Math.min(rules.backoffMsMax, rules.backoffMsMin * 2 ** (deaths.length - 1));
}

function recent(deathsAtMs: readonly number[], nowMs: number, rules: LifeRules): readonly number[] {
  return deathsAtMs.filter((atMs) => nowMs - atMs < rules.deathsWindowMs);
}
