/** Functions, objects and streams between a TypeScript host and a real worker: by reference, both ways. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import {
  type AirlockError,
  Keywords,
  type Pack,
  type RemoteFunction,
  type RemoteIterator,
  RemoteObject,
  remote,
} from "../../src/index.ts";
import { rejectionOf } from "../support/errors.ts";
import { until } from "../support/until.ts";
import { packs, useWorld } from "./support.ts";

describe("a worker that knows references", () => {
  const world = useWorld();

  async function exchange(): Promise<Pack> {
    const airlock = await world.connect(await world.serve());
    return await airlock.open(join(packs, "exchange"));
  }

  const outputOf = async (pack: Pack, node: string, inputs: object = {}): Promise<unknown> =>
    ((await pack.call(node, { ...inputs })) as [unknown])[0];

  test("calls a function of the host's, with keywords", async () => {
    const pack = await exchange();
    const scale = (value: number, { by }: { by: number }) => value * by;
    expect(await outputOf(pack, "Call", { function: scale, args: [3], keywords: { by: 4 } })).toBe(12);
  });

  test("nests callbacks, over the relay and over the line", async () => {
    const pack = await exchange();
    const back = (text: unknown) => `host(${String(text)})`;
    const outer = async (inner: RemoteFunction) => `host(${String(await inner(back))})`;
    // The first call starts the worker and goes over the relay; later ones have a line.
    for (let round = 0; round < 3; round++) {
      expect(await outputOf(pack, "CallWithCallback", { function: outer })).toBe("host(worker(host(x)))");
    }
  });

  test("tells its node what a callback throws, and its host that again", async () => {
    const pack = await exchange();
    const fail = () => {
      throw new RangeError("no such layer");
    };
    const { code, details } = await rejectionOf(pack.call("Call", { function: fail, args: [], keywords: {} }));
    expect(code).toBe("remote_exception");
    expect(details.exception?.message).toContain("no such layer");
    expect(details.exception?.types[0]).toContain("RangeError");
  });

  test("keeps what it returns, lets the host use it, and knows it again", async () => {
    const pack = await exchange();
    const add = (await outputOf(pack, "MakeFunction", { plus: 2 })) as RemoteFunction;
    expect(await add(3)).toBe(5);
    expect(await add(3, new Keywords({ times: 10 }))).toBe(50);
    const model = (await outputOf(pack, "MakeModel", { layers: 12 })) as RemoteObject;
    expect(model).toBeInstanceOf(RemoteObject);
    expect([await model.get("layers"), await model.invoke("scaled", 2, new Keywords({ plus: 1 }))]).toEqual([12, 25]);
    expect(await ((await model.get("scaled")) as (by: number) => Promise<unknown>)(3)).toBe(36);
    expect((await rejectionOf(model.get("_secret"))).code).toBe("bad_request");
    expect([...((await pack.call("UseModel", { model })) as unknown[])]).toEqual([true, 12]);
  });

  test("uses what the host has opened, and nothing else of it", async () => {
    const pack = await exchange();
    const model = remote({ layers: 7 });
    expect([...((await pack.call("UseModel", { model })) as unknown[])]).toEqual([false, 7]);
  });

  test("drops what it returned once the host has", async () => {
    const pack = await exchange();
    await (async () => await outputOf(pack, "MakeModel", { layers: 1 }))();
    await until(async () => {
      Bun.gc(true);
      return (await outputOf(pack, "Returned")) === 0;
    }, "the worker has dropped it");
  });

  test("lets go of the host's functions", async () => {
    const pack = await exchange();
    const weak = await (async () => {
      const f = () => 1;
      await outputOf(pack, "Call", { function: f, args: [], keywords: {} });
      return new WeakRef(f);
    })();
    await until(async () => {
      await outputOf(pack, "Returned");
      Bun.gc(true);
      return weak.deref() === undefined;
    }, "the function is garbage");
  });

  test("streams, and reads streams", async () => {
    const pack = await exchange();
    const numbers: unknown[] = [];
    for await (const number of (await outputOf(pack, "Count", { count: 500 })) as RemoteIterator) numbers.push(number);
    expect(numbers).toEqual(Array.from({ length: 500 }, (_, index) => index));
    const stream = (function* () {
      yield* [1, 2, 3];
    })();
    expect(await outputOf(pack, "Sum", { stream })).toBe(6);
  });

  test("takes its objects along when it ends", async () => {
    const pack = await exchange();
    const add = (await outputOf(pack, "MakeFunction", { plus: 2 })) as RemoteFunction;
    const ended = Promise.withResolvers<void>();
    pack.onWorkerEnded(() => ended.resolve());
    process.kill((await pack.describe()).pid, "SIGKILL");
    await ended.promise;
    await until(
      async () => (await add(1).catch((error: AirlockError) => error.code)) === "reference_gone",
      "it is gone",
    );
    expect(await outputOf(pack, "Sum", { stream: [1, 2].values() })).toBe(3);
  });

  test("passes what it owns to another worker through the host", async () => {
    const server = await world.serve();
    const pack = await (await world.connect(server)).open(join(packs, "exchange"));
    const other = await (await world.connect(server)).open(join(packs, "exchange"));
    const add = await outputOf(pack, "MakeFunction", { plus: 1 });
    expect(await outputOf(other, "Call", { function: add, args: [1], keywords: { times: 2 } })).toBe(4);
    const raw = await pack.callRaw("MakeModel", { layers: 3 });
    expect(raw.references).toBeDefined();
    const model = await outputOf(pack, "MakeModel", { layers: 3 });
    expect([...((await other.call("UseModel", { model })) as unknown[])]).toEqual([false, 3]);
  });
});
