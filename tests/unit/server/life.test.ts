import { describe, expect, test } from "bun:test";
import * as fc from "fast-check";
import {
  hasWorker,
  type Life,
  type LifeEvent,
  type LifeState,
  startNotBeforeMs,
  step,
  takesCalls,
  unborn,
} from "../../../src/server/workers/life.ts";
import { defaultLimits } from "../../../src/transport/limits.ts";

const rules = { backoffMsMin: 100, backoffMsMax: 10_000, deathsMax: 5, deathsWindowMs: 60_000 };

/** The life after these events, one each millisecond. */
function after(...events: LifeEvent[]): Life {
  return events.reduce((life, event, index) => step(life, event, index, rules), unborn);
}

const wanted: LifeEvent = { type: "wanted" };
const admitted: LifeEvent = { type: "admitted" };
const draining: LifeEvent = { type: "draining" };
const resumed: LifeEvent = { type: "resumed" };
const stopping: LifeEvent = { type: "stopping" };
const released: LifeEvent = { type: "released" };
const died: LifeEvent = { type: "ended", isDeath: true };
const ended: LifeEvent = { type: "ended", isDeath: false };
const loaded = (calls: number): LifeEvent => ({ type: "loaded", calls });

describe("a worker's life", () => {
  const lives: readonly [string, LifeEvent[], LifeState][] = [
    ["begins when it is wanted", [wanted], "starting"],
    ["is ready from its hello", [wanted, admitted], "ready"],
    ["is busy while it has calls", [wanted, admitted, loaded(2)], "busy"],
    ["is ready again without", [wanted, admitted, loaded(2), loaded(0)], "ready"],
    ["drains", [wanted, admitted, loaded(1), draining], "draining"],
    ["goes on where it is needed after all", [wanted, admitted, draining, resumed], "ready"],
    ["stops", [wanted, admitted, draining, stopping], "stopping"],
    ["stops before it is ready", [wanted, stopping], "stopping"],
    ["is over when it has ended", [wanted, admitted, stopping, ended], "dead"],
    ["is over when it could not begin", [wanted, ended], "dead"],
    ["begins again at once after an end that was wanted", [wanted, admitted, ended, wanted], "starting"],
    ["is not begun twice", [wanted, wanted], "starting"],
    ["takes no news of the one before", [wanted, ended, admitted, loaded(1), stopping], "dead"],
  ];
  for (const [title, events, state] of lives) test(title, () => expect(after(...events).state).toBe(state));

  test("says since when it is in its state", () => {
    expect(after(wanted, admitted, loaded(0)).sinceMs).toBe(1);
    expect(after(wanted, admitted, loaded(3), loaded(2)).sinceMs).toBe(2);
  });
});

describe("after a death", () => {
  test("the next worker waits for the back-off, which doubles up to its bound", () => {
    let life = unborn;
    const waits: number[] = [];
    let nowMs = 0;
    for (let death = 0; death < 4; death++) {
      life = step(step(life, wanted, nowMs, rules), died, nowMs, rules);
      const untilMs = startNotBeforeMs(life, nowMs, rules);
      waits.push(untilMs - nowMs);
      expect(step(life, wanted, untilMs - 1, rules).state).toBe("dead");
      nowMs = untilMs;
    }
    expect(waits).toEqual([100, 200, 400, 800]);
    const many: Life = { state: "dead", sinceMs: 0, deathsAtMs: Array.from({ length: 40 }, () => 0) };
    expect(startNotBeforeMs(many, 0, rules)).toBe(10_000);
  });

  test("that is long ago nothing is waited for", () => {
    const life = step(step(unborn, wanted, 0, rules), died, 0, rules);
    expect(startNotBeforeMs(life, rules.deathsWindowMs, rules)).toBe(0);
  });

  test("the last of too many has the slot held until it is released, which forgets them", () => {
    let life = unborn;
    for (let death = 0; death < rules.deathsMax; death++) {
      expect(life.state).toBe("dead");
      life = step(step(life, wanted, death * 10_000, rules), died, death * 10_000, rules);
    }
    expect(life.state).toBe("held");
    for (const event of [wanted, admitted, ended, died]) expect(step(life, event, 1e9, rules)).toBe(life);
    const again = step(life, released, 50_001, rules);
    expect([again.state, step(again, wanted, 50_001, rules).state]).toEqual(["dead", "starting"]);
  });

  test("too many over too long a time hold nothing", () => {
    let life = unborn;
    for (let death = 0; death < 50; death++) {
      life = step(step(life, wanted, death * 15_000, rules), died, death * 15_000, rules);
      expect(life.state).toBe("dead");
    }
  });
});

/** What holds of any step, whatever happened before. */
function checkStep(before: Life, event: LifeEvent, life: Life, nowMs: number, recentDeaths: number): void {
  if (life.state === "starting" && before.state !== "starting") {
    expect(before.state).toBe("dead");
    expect(nowMs).toBeGreaterThanOrEqual(startNotBeforeMs(before, nowMs, rules));
  }
  if (before.state === "held" && life.state !== "held") expect(event.type).toBe("released");
  if (event.type === "ended" && hasWorker(before)) {
    expect(life.state).toBe(event.isDeath && recentDeaths >= rules.deathsMax ? "held" : "dead");
  } else if (life.state === "held") expect(before.state).toBe("held");
  expect(takesCalls(life) && !hasWorker(life)).toBe(false);
  expect(life.sinceMs).toBeLessThanOrEqual(nowMs);
}

test("whatever happens, it starts out of dead alone, after its back-off, and is held exactly by too many deaths", () => {
  const event: fc.Arbitrary<LifeEvent> = fc.oneof(
    fc.constantFrom(wanted, admitted, draining, resumed, stopping, died, ended, released),
    fc.nat(3).map(loaded),
  );
  const history = fc.array(fc.tuple(event, fc.nat(20_000)), { maxLength: 60 });
  const check = (events: [LifeEvent, number][]) => {
    let life = unborn;
    let nowMs = 0;
    let deathsAtMs: number[] = [];
    for (const [each, waitMs] of events) {
      nowMs += waitMs;
      const before = life;
      life = step(before, each, nowMs, rules);
      if (each.type === "released") deathsAtMs = [];
      if (each.type === "ended" && each.isDeath && hasWorker(before)) deathsAtMs.push(nowMs);
      const recent = deathsAtMs.filter((atMs) => nowMs - atMs < rules.deathsWindowMs);
      checkStep(before, each, life, nowMs, recent.length);
    }
  };
  fc.assert(fc.property(history, check));
});

test("the rules in force are the limits' own", () => {
  expect(defaultLimits).toMatchObject(rules);
});
