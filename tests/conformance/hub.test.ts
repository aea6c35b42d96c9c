/** Two packs that know nothing of each other: what one owns is passed to the other through the host. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { originOf } from "../../src/client/stand-ins.ts";
import {
  type AirlockError,
  Float,
  Keywords,
  RawValue,
  type RemoteFunction,
  type RemoteIterator,
  type RemoteObject,
  remote,
  Tuple,
} from "../../src/index.ts";
import { decodeRaw, encode, encodeParts } from "../../src/transport/codec.ts";
import { Reference } from "../../src/transport/references.ts";
import { rawElements } from "../../src/transport/scan.ts";
import { joined } from "../support/bytes.ts";
import { rejectionOf } from "../support/errors.ts";
import { collected } from "../support/until.ts";
import { overMemory, type World } from "./worlds.ts";

let one: World;
let other: World;
beforeEach(async () => {
  one = await overMemory("");
  other = await overMemory("");
});
afterEach(async () => {
  await one[Symbol.asyncDispose]();
  await other[Symbol.asyncDispose]();
});

class Model {
  readonly layers = 12;
  scaled(by: number, { plus = 0 } = {}): number {
    return by * this.layers + plus;
  }
}

describe("what one pack owns, in another", () => {
  test("is called, read and used where it lives", async () => {
    const model = new Model();
    one.nodes.set("Make", () => ({ model: remote(model), f: (x: number, { y }: { y: number }) => x - y }));
    other.nodes.set("Use", async (inputs) => {
      const { model: theirs, f } = inputs as { model: RemoteObject; f: RemoteFunction };
      return [
        theirs.type,
        await theirs.get("layers"),
        await theirs.invoke("scaled", 2, new Keywords({ plus: 1 })),
        await ((await theirs.get("scaled")) as (by: number) => Promise<number>)(3),
        await f(5, new Keywords({ y: 3 })),
        await theirs.get("_weights").catch((error: AirlockError) => error.code),
      ];
    });
    const made = (await one.pack.call("Make")) as Record<string, unknown>;
    expect(await other.pack.call("Use", made)).toEqual(["javascript:Model", 12, 25, 36, 2, "bad_request"]);
  });

  test("comes home as the object itself, by whichever way", async () => {
    const model = new Model();
    let seen: unknown[] = [];
    one.nodes.set("Make", () => remote(model));
    one.nodes.set("Take", ({ values }) => {
      seen = values as unknown[];
    });
    other.nodes.set("Echo", ({ value }) => value);
    const made = await one.pack.call("Make");
    const echoed = await other.pack.call("Echo", { value: made });
    expect(echoed).toBe(made);
    await one.pack.call("Take", { values: [made, echoed] });
    expect(seen).toEqual([model, model]);
    expect(seen.every((value) => value === model)).toBe(true);
  });

  test("is a stream of the same kind, items that came already first", async () => {
    one.nodes.set("Count", function* () {
      yield* [1, 2, 3, 4];
    });
    const kinds: unknown[] = [];
    other.nodes.set("Sum", async ({ stream }) => {
      kinds.push(originOf(stream as object)?.kind);
      let sum = 0;
      for await (const item of stream as AsyncIterable<number>) sum += item;
      return sum;
    });
    const stream = (await one.pack.call("Count")) as RemoteIterator;
    expect((await stream.next()).value).toBe(1);
    expect(await other.pack.call("Sum", { stream })).toBe(9);
    expect(kinds).toEqual(["iterator"]);
  });

  test("is let go of when nobody holds it any more", async () => {
    const weak: WeakRef<object>[] = [];
    one.nodes.set("Make", () => {
      const f = () => 1;
      weak.push(new WeakRef(f));
      return f;
    });
    other.nodes.set("Drop", () => null);
    await (async () => other.pack.call("Drop", { f: await one.pack.call("Make") }))();
    await collected(() => weak[0]?.deref() === undefined, "it is garbage where it lives");
  });

  test("is a call nested in the one that it is made for, through both", async () => {
    const order: string[] = [];
    one.nodes.set("Start", async ({ run }) => {
      const own = () => {
        order.push("one again");
        return "home";
      };
      return await (run as RemoteFunction)(own);
    });
    other.nodes.set("Run", async ({ f }) => {
      order.push("other");
      return await (f as RemoteFunction)();
    });
    const run = async (f: unknown) => await other.pack.call("Run", { f });
    expect(await one.pack.call("Start", { run })).toBe("home");
    expect(order).toEqual(["other", "one again"]);
  });
});

describe("a raw result", () => {
  test("keeps the exact bytes of all that is beside the references in it", async () => {
    const rest = { strength: new Float(1), many: new Array(300).fill(2), text: "x".repeat(70_000) };
    one.nodes.set("Make", () =>
      Tuple.of<unknown>(
        Tuple.of(() => "called"),
        rest,
      ),
    );
    other.nodes.set("See", async ({ value }) => {
      const [[f]] = value as [[RemoteFunction]];
      return [value instanceof Tuple, await f()];
    });
    const raw = await one.pack.callRaw("Make");
    expect(await other.pack.call("See", { value: raw })).toEqual([true, "called"]);
    const [, passed] = rawElements(passedOn(raw));
    expect(Buffer.compare(passed?.bytes ?? new Uint8Array(), encode(rest))).toBe(0);
  });

  /** The value as it is sent on, where its references have other numbers. */
  function passedOn(raw: RawValue): RawValue {
    const sender = { toReference: () => new Reference(1, { kind: "function", type: "a:name.that.is.longer" }) };
    return new RawValue(joined(encodeParts(raw, sender)), raw.references);
  }

  test("sends what its receiver owns home", async () => {
    const model = new Model();
    one.nodes.set("Make", () => Tuple.of(remote(model)));
    let seen: unknown;
    one.nodes.set("Take", ({ value }) => {
      seen = value;
    });
    other.nodes.set("Wrap", ({ value }) => ({ wrapped: new Map([[1, value]]) }));
    const [element] = rawElements(await one.pack.callRaw("Make"));
    if (element === undefined) return expect.unreachable();
    await one.pack.call("Take", { value: element });
    expect(seen).toBe(model);
    const wrapped = await other.pack.callRaw("Wrap", { value: element });
    await one.pack.call("Take", { value: wrapped });
    expect(seen).toEqual({ wrapped: new Map([[1, model]]) });
  });

  test("is decoded with stand-ins, the host's own objects as they are", async () => {
    const f = () => 1;
    one.nodes.set("Both", ({ value }) => [value, () => 2]);
    const raw = await one.pack.callRaw("Both", { value: f });
    const [mine, theirs] = decodeRaw(raw) as [unknown, RemoteFunction];
    expect(mine).toBe(f);
    expect(await theirs()).toBe(2);
  });

  test("holds what it names until it is garbage itself", async () => {
    const weak: WeakRef<object>[] = [];
    one.nodes.set("Make", () => {
      const f = () => "alive";
      weak.push(new WeakRef(f));
      return [f];
    });
    other.nodes.set("Call", async ({ value }) => await (value as [RemoteFunction])[0]());
    await (async () => {
      const raw = await one.pack.callRaw("Make");
      for (let round = 0; round < 3; round++) {
        Bun.gc(true);
        await Bun.sleep(2);
      }
      expect(await other.pack.call("Call", { value: raw })).toBe("alive");
    })();
    await collected(() => weak[0]?.deref() === undefined, "it is garbage where it lives");
  });

  test("without references goes from pack to pack as it came", async () => {
    one.nodes.set("Make", () => new Float(8));
    other.nodes.set("Echo", ({ value }) => value);
    const raw = await one.pack.callRaw("Make");
    expect(raw.references).toBeUndefined();
    expect(await other.pack.call("Echo", { value: raw })).toBe(8);
  });

  test("that a pack forged to name another's object is refused", async () => {
    one.nodes.set("Forge", () => [() => 1]);
    const raw = await one.pack.callRaw("Forge");
    // A host that has lost track of whose references they are passes none of them on.
    const stripped = Object.assign(Object.create(Object.getPrototypeOf(raw)), { bytes: raw.bytes });
    const error = await rejectionOf(other.pack.call("Echo", { value: stripped }));
    expect([error.code, error.message]).toEqual(["value_invalid", "a reference stands where it has no meaning"]);
  });
});
