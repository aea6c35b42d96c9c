/** Tensors between a TypeScript host and Python workers: by lease, decoded and raw, and who holds how much. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type Airlock, NdArray, type Pack, type Tuple } from "../../src/index.ts";
import { rawElements } from "../../src/transport/scan.ts";
import { packs, until, useWorld } from "./support.ts";

const floats = 1 << 18;

function ramp(): NdArray {
  const data = new Float32Array(floats).map((_, index) => index % 1000);
  return new NdArray("tensor", "float32", [512, 512], new Uint8Array(data.buffer));
}

describe("a Python worker and a host in TypeScript", () => {
  const world = useWorld();

  async function arrays(): Promise<{ airlock: Airlock; pack: Pack }> {
    const airlock = await world.connect(await world.serve());
    return { airlock, pack: await airlock.open(join(packs, "arrays")) };
  }

  test("share a large array there and back, over the relay and over the line", async () => {
    const { pack } = await arrays();
    // The first call starts the worker and goes over the relay.
    for (let round = 0; round < 3; round++) {
      const [inverted] = (await pack.call("Invert", { image: ramp() })) as Tuple & [NdArray];
      const values = inverted.typed() as Float32Array;
      expect([values.length, values[0], values[999], values[floats - 1]]).toEqual([
        floats,
        1,
        -998,
        1 - ((floats - 1) % 1000),
      ]);
    }
  });

  test("pass a raw result on without a copy, and each sees its own edits alone", async () => {
    const { airlock, pack } = await arrays();
    const [first] = rawElements(await pack.callRaw("Echo", { value: ramp() }));
    await pack.call("EditInPlace", { value: first });
    const [[echoed]] = [(await pack.call("Echo", { value: first })) as Tuple & [NdArray]];
    expect([...(echoed.typed() as Float32Array).subarray(0, 3)]).toEqual([0, 1, 2]);
    const { packs } = await airlock.stats();
    const memory = packs[0]?.workers[0]?.health?.memory;
    // The echoes went home as what they came as; what was edited is the worker's own copy.
    expect(memory?.forwarded_bytes).toBe(2 * 4 * floats);
    expect(memory?.copied_bytes).toBe(4 * floats);
  });

  test("send lists of many small arrays as what they are", async () => {
    const { pack } = await arrays();
    const small = Array.from(
      { length: 100 },
      (_, index) => new NdArray("ndarray", "uint8", [2], Uint8Array.of(index, 7)),
    );
    const [back] = (await pack.call("Echo", { value: small })) as Tuple & [NdArray[]];
    expect(back.map(({ data }) => [...data])).toEqual(small.map(({ data }) => [...data]));
  });

  test("a shared array is sent again without a copy", async () => {
    const { airlock, pack } = await arrays();
    const shared = await airlock.share(ramp());
    for (let round = 0; round < 3; round++) await pack.call("Echo", { value: shared });
    const { hosts } = await airlock.stats();
    // One segment for what is shared; nothing was copied to another.
    expect(hosts.map(({ segments }) => segments)).toEqual([1]);
  });

  test("leave nothing leased once nobody looks at it", async () => {
    const { airlock, pack } = await arrays();
    const use = async () => void (await pack.call("Echo", { value: ramp() }));
    await use();
    await until(async () => {
      Bun.gc(true);
      await pack.call("Echo", { value: 1 });
      const memory = (await airlock.stats()).packs[0]?.workers[0]?.health?.memory;
      return memory?.leases_held === 0 && memory.leases_given === 0;
    }, "nothing is leased");
  });
});
