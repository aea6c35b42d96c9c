import { describe, expect, test } from "bun:test";
import { Checkpoint } from "../../../src/server/checkpoint.ts";
import { decode, encode } from "../../../src/transport/codec.ts";
import { AirlockError } from "../../../src/transport/errors.ts";
import { bytesOf } from "../../support/bytes.ts";
import { thrownBy } from "../../support/errors.ts";

/** What the next worker would be given. */
async function given(checkpoint: Checkpoint): Promise<unknown> {
  let state: unknown = "nothing";
  await checkpoint.give(async (raw) => {
    state = decode(raw.bytes);
  });
  return state;
}

describe("a checkpoint", () => {
  test("is the last state that was told, as often as it is asked for", async () => {
    const checkpoint = new Checkpoint();
    expect([checkpoint.isThere, await given(checkpoint)]).toEqual([false, "nothing"]);
    for (const sum of [1, 2]) checkpoint.take(encode(["checkpoint", { sum }]));
    expect([checkpoint.isThere, await given(checkpoint), await given(checkpoint)]).toEqual([
      true,
      { sum: 2 },
      { sum: 2 },
    ]);
    checkpoint.drop();
    expect(checkpoint.isThere).toBe(false);
  });

  test("keeps a copy: what it was told in is somebody else's buffer", async () => {
    const checkpoint = new Checkpoint();
    const body = encode(["checkpoint", 5]).slice();
    checkpoint.take(body);
    body.fill(0xc1);
    expect(await given(checkpoint)).toBe(5);
  });

  test("that a worker can't live with is given to no other", async () => {
    const checkpoint = new Checkpoint();
    checkpoint.take(encode(["checkpoint", 1]));
    const died = new AirlockError("worker_died", "killed");
    expect(await checkpoint.give(() => Promise.reject(died))).toBe(died);
    expect(checkpoint.isThere).toBe(false);
  });

  test.each<[string, unknown]>([
    ["another event", ["progress", 1]],
    ["too much", ["checkpoint", 1, 2]],
    ["too little", ["checkpoint"]],
    ["no list", "checkpoint"],
  ])("is not made of %s", (_, body) => {
    const checkpoint = new Checkpoint();
    checkpoint.take(encode(body));
    expect(checkpoint.isThere).toBe(false);
  });

  test.each([["c1"], ["92aa63"], ["dd00100000"]])("is not made of the bytes %s, which are no value", (hex) => {
    expect(thrownBy(() => new Checkpoint().take(bytesOf(hex))).code).toBe("value_invalid");
  });
});
