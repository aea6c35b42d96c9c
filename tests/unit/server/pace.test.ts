import { expect, test } from "bun:test";
import { Pace } from "../../../src/server/workers/pace.ts";
import { ManualClock } from "../../../src/transport/clock.ts";
import { settled } from "../../support/peers.ts";

test("work is followed by a rest of four times its length, for whoever comes next", async () => {
  const clock = new ManualClock();
  const pace = new Pace(clock);
  await pace.turn();
  pace.work(() => clock.advance(5));
  let turns = 0;
  for (let waiting = 0; waiting < 2; waiting++) void pace.turn().then(() => turns++);
  clock.advance(19);
  await settled();
  expect(turns).toBe(0);
  clock.advance(1);
  await settled();
  expect(turns).toBe(2);
});

test("small pieces of work are rested for together", async () => {
  const clock = new ManualClock();
  const pace = new Pace(clock);
  for (let piece = 0; piece < 2; piece++) {
    pace.work(() => clock.advance(0.1));
    await pace.turn();
  }
  pace.work(() => clock.advance(0.2));
  let isTurn = false;
  void pace.turn().then(() => {
    isTurn = true;
  });
  await settled();
  expect(isTurn).toBe(false);
  clock.advance(2);
  await settled();
  expect(isTurn).toBe(true);
});
