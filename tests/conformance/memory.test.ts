/** Large arrays over each way: in memory that both processes map, without a copy more than it takes, and back when it is over. */
import { describe, expect, test } from "bun:test";
import { currentCall } from "../../src/client/incoming-call.ts";
import { NdArray, type RemoteIterator, Tuple } from "../../src/index.ts";
import { rawElements } from "../../src/transport/scan.ts";
import { rejectionOf } from "../support/errors.ts";
import { temporaryFolders } from "../support/folders.ts";
import { collected, until } from "../support/until.ts";
import { type ModelHost, openedAtModel, untilOnLine } from "./model-host.ts";
import { packPeer } from "./model-relay.ts";

const newFolder = temporaryFolders();
const MiB = 1024 * 1024;

function arrayOf(bytes: number, fill = 1): NdArray {
  return new NdArray("tensor", "uint8", [bytes], new Uint8Array(bytes).fill(fill));
}

async function opened(line: boolean): Promise<ModelHost> {
  const host = await openedAtModel(newFolder(), { line, segments: true, window: 4 * MiB });
  host.relay.nodes.set("Drop", () => null);
  if (line) await untilOnLine(host);
  return host;
}

/** No block of either side's is in use. */
async function nothingIsHeld({ relay }: ModelHost): Promise<void> {
  await collected(
    () => relay.segments.blocks("host") === 0 && relay.segments.blocks("worker") === 0,
    "all blocks are free",
  );
}

describe.each([
  ["the relay", false],
  ["a line", true],
])("over %s", (_, line) => {
  test("a large array arrives as it was, and only its description travels", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    const data = new Uint8Array(8 * MiB).map((_, index) => index * 7);
    const image = new NdArray("tensor", "float32", [1, 1024, 512, 4], data, [0, 3, 1, 2]);
    const before = relay.relayedBytes;
    const answer = (await pack.call("Echo", { value: { image, more: [1, data] } })) as {
      image: NdArray;
      more: unknown[];
    };
    expect(relay.relayedBytes - before).toBeLessThan(4096);
    const { kind, dtype, shape, order } = answer.image;
    expect({ kind, dtype, shape, order }).toEqual({
      kind: "tensor",
      dtype: "float32",
      shape: [1, 1024, 512, 4],
      order: [0, 3, 1, 2],
    });
    expect(Buffer.compare(answer.image.data, data)).toBe(0);
    expect(Buffer.compare(answer.more[1] as Uint8Array, data)).toBe(0);
    expect(answer.image.typed()).toBeInstanceOf(Float32Array);
  });

  test("small arrays stand in the message, and beyond 1 MiB of them share a block", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    const small = Array.from({ length: 64 }, (_, index) => arrayOf(60_000, index));
    expect(((await pack.call("Echo", { value: small.slice(0, 8) })) as NdArray[]).length).toBe(8);
    expect(relay.segments.numbers).toEqual([]);
    relay.nodes.set("Sum", ({ value }) => [
      (value as NdArray[]).map(({ data }) => data[59_999]),
      relay.segments.blocks("host"),
    ]);
    const [last, blocks] = (await pack.call("Sum", { value: small })) as [number[], number];
    expect(last).toEqual(small.map((_, index) => index));
    expect(blocks).toBe(1);
  });

  test("memory is free again once neither side looks at it", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    const shape = await (async () => {
      const answer = (await pack.call("Echo", { value: arrayOf(3 * MiB) })) as NdArray;
      expect(relay.segments.blocks("host")).toBe(1);
      return answer.shape;
    })();
    expect(shape).toEqual([3 * MiB]);
    await nothingIsHeld(world);
    // What was taken once serves again.
    const made = relay.segments.asked.filter(([, method]) => method === "make_segment").length;
    await pack.call("Drop", { value: arrayOf(3 * MiB) });
    expect(relay.segments.asked.filter(([, method]) => method === "make_segment").length).toBe(made);
  });

  test("memory stays as long as any view of it does, also where its array is garbage", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    relay.nodes.set("Make", () => arrayOf(2 * MiB, 5));
    const view = await (async () => ((await pack.call("Make")) as NdArray).data.subarray(100, 104))();
    for (let round = 0; round < 5; round++) {
      Bun.gc(true);
      await Bun.sleep(10);
    }
    expect(relay.segments.blocks("worker")).toBe(1);
    expect([...view]).toEqual([5, 5, 5, 5]);
  });

  test("what is passed on as it came is not copied; what was written to is, and its sender sees nothing of it", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    const made = arrayOf(2 * MiB, 5);
    relay.nodes.set("Make", () => made);
    relay.nodes.set("First", ({ value }) => [(value as NdArray).data[0], relay.segments.blocks("host")]);
    const image = (await pack.call("Make")) as NdArray;
    expect(await pack.call("First", { value: image })).toEqual([5, 0]);
    image.data[0] = 9;
    expect(await pack.call("First", { value: image })).toEqual([9, 1]);
    expect(made.data[0]).toBe(5);
    expect(relay.segments.ownedBytes("worker")).toBe(64 * MiB);
  });

  test("a part of an array that came is passed on without a copy, and its writes elsewhere don't matter", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    relay.nodes.set("Make", () => arrayOf(2 * MiB, 5));
    const image = (await pack.call("Make")) as NdArray;
    image.data[0] = 9;
    const part = new NdArray("tensor", "uint8", [MiB], image.data.subarray(MiB));
    relay.nodes.set("First", ({ value }) => [(value as NdArray).data[0], relay.segments.blocks("host")]);
    expect(await pack.call("First", { value: part })).toEqual([5, 0]);
  });

  test("a shared array is copied once, however often it is sent, and freed when all have dropped it", async () => {
    await using world = await opened(line);
    const { relay, airlock, pack } = world;
    relay.nodes.set("First", ({ value }) => [(value as NdArray).data[0], relay.segments.blocks("host")]);
    await (async () => {
      const model = await airlock.share(arrayOf(5 * MiB, 3));
      for (let call = 0; call < 3; call++) expect(await pack.call("First", { value: model })).toEqual([3, 1]);
      expect(await airlock.share(model)).toBe(model);
      model.data[0] = 4;
      expect(await pack.call("First", { value: model })).toEqual([4, 2]);
    })();
    await nothingIsHeld(world);
  });

  test("one array larger than a segment's share has a segment of its own", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    const large = arrayOf(40 * MiB, 7);
    const echoed = (await pack.call("Echo", { value: large })) as NdArray;
    expect([echoed.data.byteLength, echoed.data[40 * MiB - 1]]).toEqual([40 * MiB, 7]);
    expect(relay.segments.ownedBytes("host")).toBe(40 * MiB + 4096);
  });

  test("values that stay encoded keep their arrays, in parts too, and pass them on without looking at them", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    relay.nodes.set("Make", () => Tuple.of<unknown>(arrayOf(2 * MiB, 5), "word", [arrayOf(MiB, 6), arrayOf(9, 7)]));
    relay.nodes.set("Ends", ({ value, list }) => {
      const [first, second] = list as [NdArray, NdArray];
      return [(value as NdArray).data.at(-1), first.data.at(-1), second.data.at(-1), relay.segments.blocks("host")];
    });
    await (async () => {
      const [value, , list] = rawElements(await pack.callRaw("Make"));
      for (let round = 0; round < 5; round++) {
        Bun.gc(true);
        await Bun.sleep(5);
      }
      expect(await pack.call("Ends", { list, value })).toEqual([5, 6, 7, 0]);
      // Together with an array that is new here.
      expect(await pack.call("Ends", { value: arrayOf(MiB, 8), list })).toEqual([8, 6, 7, 1]);
    })();
    await nothingIsHeld(world);
  });

  test("a result outlives its worker, and what nobody needs of it is dropped", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    relay.nodes.set("Make", () => arrayOf(2 * MiB, 5));
    await (async () => {
      const image = (await pack.call("Make")) as NdArray;
      const ended = Promise.withResolvers<void>();
      pack.onWorkerEnded(() => ended.resolve());
      relay.endWorker();
      await ended.promise;
      expect(image.data[2 * MiB - 1]).toBe(5);
      // The next worker gets the memory of the one before.
      relay.nodes.set("First", ({ value }) => (value as NdArray).data[0]);
      expect(await pack.call("First", { value: image })).toBe(5);
    })();
    await collected(() => {
      return relay.segments.asked.some(([side, method]) => side === "host" && method === "drop_segment");
    }, "the host lets go of the segment");
  });

  test("what a dead worker held is free", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    const kept: unknown[] = [];
    relay.nodes.set("Keep", ({ value }) => void kept.push(value));
    await pack.call("Keep", { value: arrayOf(2 * MiB) });
    const ended = Promise.withResolvers<void>();
    pack.onWorkerEnded(() => ended.resolve());
    relay.endWorker();
    await ended.promise;
    await until(() => relay.segments.blocks("host") === 0, "it is free");
    expect((kept[0] as NdArray).data[0]).toBe(1);
  });

  test("segments are shared with the next worker too", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    relay.nodes.set("First", ({ value }) => (value as NdArray).data[0]);
    for (let worker = 1; worker <= 3; worker++) {
      for (let call = 0; call < 3; call++) {
        expect(await pack.call("First", { value: arrayOf(2 * MiB, worker) })).toBe(worker);
        await Bun.sleep(5);
      }
      const ended = Promise.withResolvers<void>();
      pack.onWorkerEnded(() => ended.resolve());
      relay.endWorker();
      await ended.promise;
    }
  });

  test("the late answer of a cancelled call gives its memory back", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    const gate = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    relay.nodes.set("Late", async () => {
      begun.resolve();
      await gate.promise;
      return arrayOf(2 * MiB);
    });
    const controller = new AbortController();
    const call = pack.call("Late", { value: arrayOf(2 * MiB) }, { signal: controller.signal });
    call.catch(() => undefined);
    await begun.promise;
    controller.abort();
    gate.resolve();
    await call.catch(() => undefined);
    await until(() => relay.segments.ownedBytes("worker") > 0, "it was answered");
    await nothingIsHeld(world);
  });

  test("items of streams, arguments of callbacks, and their results are placed likewise", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    relay.nodes.set("Frames", async function* ({ f }) {
      for (let index = 0; index < 3; index++)
        yield await (f as (value: NdArray) => Promise<unknown>)(arrayOf(MiB, index));
    });
    const seen: unknown[] = [];
    const f = (value: NdArray) => {
      expect(currentCall()).toBeDefined();
      seen.push(value.data[0]);
      return arrayOf(MiB, 10 + Number(value.data[0]));
    };
    await (async () => {
      const frames: unknown[] = [];
      for await (const frame of (await pack.call("Frames", { f })) as RemoteIterator)
        frames.push((frame as NdArray).data[0]);
      expect([seen, frames]).toEqual([
        [0, 1, 2],
        [10, 11, 12],
      ]);
    })();
    await nothingIsHeld(world);
  });

  test("events with arrays arrive in the order in which they were told", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    await pack.call("Drop");
    const values = [arrayOf(MiB, 1), 2, arrayOf(40 * MiB, 3), 4].slice(0, line ? 4 : 2);
    await Promise.all(values.map((value) => pack.emit("preview", value)));
    await until(() => relay.worker.events.length === values.length, "all are heard");
    const heard = relay.worker.events.map(([, value]) => (value instanceof NdArray ? value.data[7] : value));
    expect(heard as unknown[]).toEqual([1, 2, 3, 4].slice(0, values.length));
    // On the relay nobody would say that an event reached nobody.
    expect(relay.segments.ownedBytes("host") > 0).toBe(line);
  });

  test("a peer that can't be passed segments gets arrays in their messages", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    relay.segments.workerTakesThem = false;
    relay.nodes.set("First", ({ value, f }) => [(value as NdArray).data[0], typeof f]);
    for (let call = 0; call < 2; call++) {
      const before = relay.segments.asked.length;
      expect(await pack.call("First", { value: arrayOf(MiB, 4), f: () => 1 })).toEqual([4, "function"]);
      if (call === 1) expect(relay.segments.asked.length).toBe(before);
    }
    expect(relay.segments.blocks("host")).toBe(0);
  });

  test("who is short of memory asks for what others can spare, and then says what there is and who has it", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    relay.segments.bytesMax = 100 * MiB;
    // The worker looks at it no more, and has not found that out.
    relay.nodes.set("Glance", ({ value }) => (value as NdArray).data[0]);
    for (let call = 0; call < 4; call++)
      expect(await pack.call("Glance", { value: arrayOf(40 * MiB, call) })).toBe(call);
    const kept: unknown[] = [];
    relay.nodes.set("Keep", ({ value }) => void kept.push(value));
    await pack.call("Keep", { value: arrayOf(60 * MiB) });
    const error = await rejectionOf(pack.call("Glance", { value: arrayOf(60 * MiB) }));
    expect(error.code).toBe("limit_exceeded");
    expect(error.message).toContain("pack blur holds 60 MiB");
    expect(await pack.call("Glance", { value: arrayOf(1000, 9) })).toBe(9);
  });

  test.each([0, 4])(
    "any mixture of calls, some aborted, of which %p workers die, leaves nothing held",
    async (deaths) => {
      await using world = await opened(line);
      const { relay, pack } = world;
      const seed = Date.now() & 0xffff;
      let state = seed;
      const random = (below: number): number => {
        state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
        return Math.floor((state / 2 ** 31) * below);
      };
      const [kept, keptThere]: [unknown[], unknown[]] = [[], []];
      relay.nodes.set("Mix", async ({ value, wait, keep }) => {
        const here = relay.worker;
        await Bun.sleep(Number(wait));
        if (keep === true && relay.worker === here) keptThere.push(value);
        const { data } = value as NdArray;
        const own = arrayOf(data.byteLength >> 1, (data[0] ?? 0) ^ 0xff);
        return { value, own, ends: [data[0], data.at(-1)] };
      });
      const one = async (fill: number): Promise<void> => {
        const bytes = [1000, 70_000, MiB, 3 * MiB][random(4)] ?? 0;
        const controller = new AbortController();
        if (random(3) === 0) setTimeout(() => controller.abort(), random(20));
        const inputs = { value: arrayOf(bytes, fill), wait: random(15), keep: random(2) === 0 };
        const answer = await pack.call("Mix", inputs, { signal: controller.signal }).catch(() => undefined);
        if (answer === undefined) return;
        const { value, own, ends } = answer as { value: NdArray; own: NdArray; ends: number[] };
        expect([...ends, value.data[0], value.data.at(-1)]).toEqual([fill, fill, fill, fill]);
        expect(own.data.every((byte) => byte === (fill ^ 0xff))).toBe(true);
        if (random(2) === 0) kept.push(value);
      };
      try {
        const dying = Array.from({ length: deaths }, async () => {
          await Bun.sleep(200 + random(800));
          // What a dead process holds is others' by now.
          keptThere.length = 0;
          relay.endWorker();
        });
        for (let round = 0; round < 4; round++) {
          await Promise.all(Array.from({ length: 25 }, (_, index) => one(25 * round + index + 1)));
        }
        await Promise.all(dying);
        for (const value of [...kept, ...keptThere]) {
          const { data } = value as NdArray;
          expect(data.every((byte) => byte === data[0])).toBe(true);
        }
        kept.length = 0;
        keptThere.length = 0;
        await nothingIsHeld(world);
      } catch (error) {
        throw new Error(`with the seed ${seed}`, { cause: error });
      }
    },
  );

  test("a call that is aborted while it waits for memory ends at once, and holds none", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    const controller = new AbortController();
    const call = pack.call("Drop", { value: arrayOf(48 * MiB) }, { signal: controller.signal });
    const reason = new Error("enough");
    controller.abort(reason);
    expect(await call.catch((error: unknown) => error)).toBe(reason);
    await until(() => relay.segments.asked.some(([, method]) => method === "share_segment"), "it was placed in vain");
    await until(() => relay.segments.blocks("host") === 0, "its block is free");
  });

  test("a call that fails to be written holds no memory", async () => {
    await using world = await opened(line);
    const { relay, pack } = world;
    await pack.call("Drop", { value: arrayOf(MiB) });
    const error = await rejectionOf(pack.call("Drop", { value: arrayOf(MiB), bad: new URL("file:///") }));
    expect(error.code).toBe("value_unsupported");
    await nothingIsHeld(world);
    const aborted = pack.call("Drop", { value: arrayOf(MiB) }, { signal: AbortSignal.abort(new Error("no")) });
    await aborted.catch(() => undefined);
    expect(relay.segments.blocks("host")).toBe(0);
  });
});

describe("what a host names over a line, the worker there has", () => {
  const first = ({ value }: Record<string, unknown>) => (value as NdArray).data[0];

  /** A host that has sent an array over its line, and then had to leave that. */
  async function openedAndLeft(): Promise<ModelHost> {
    const host = await opened(true);
    const { relay, pack } = host;
    relay.nodes.set("First", first);
    expect(await pack.call("First", { value: arrayOf(2 * MiB, 3) })).toBe(3);
    relay.tellHost("leave_line", { pack: packPeer, line: 1 });
    await until(() => relay.asked.some(([method]) => method === "left_line"), "it is left");
    return host;
  }
  const shares = ({ relay }: ModelHost) =>
    relay.segments.asked.filter(([, method]) => method === "share_segment").length;

  test("where it was shared before there was a worker, and named to none", async () => {
    await using host = await openedAtModel(newFolder(), { line: true, segments: true });
    const { relay, pack } = host;
    relay.nodes.set("First", first);
    const controller = new AbortController();
    const aborted = pack.call("First", { value: arrayOf(2 * MiB) }, { signal: controller.signal });
    controller.abort();
    await aborted.catch(() => undefined);
    await until(() => shares(host) === 1 && relay.segments.blocks("host") === 0, "it was placed in vain");
    expect(relay.hostCalls).toBe(0);
    await untilOnLine(host);
    expect(await pack.call("First", { value: arrayOf(2 * MiB, 3) })).toBe(3);
    expect([relay.segments.numbers.length, shares(host)]).toEqual([1, 1]);
  });

  test("where its line was left and is used again", async () => {
    await using host = await openedAndLeft();
    const { relay, pack } = host;
    relay.tellHost("use_line", { pack: packPeer, line: 1 });
    await untilOnLine(host);
    expect(await pack.call("First", { value: arrayOf(2 * MiB, 4) })).toBe(4);
    expect(shares(host)).toBe(1);
  });

  test("where its line was left, and it is the worker that came after that", async () => {
    await using host = await openedAndLeft();
    const { relay, pack } = host;
    relay.endWorker();
    await untilOnLine(host);
    for (const fill of [4, 5]) expect(await pack.call("First", { value: arrayOf(2 * MiB, fill) })).toBe(fill);
    expect(relay.segments.numbers).toHaveLength(1);
  });

  test("where the worker before it died", async () => {
    await using host = await opened(true);
    const { relay, pack } = host;
    relay.nodes.set("First", first);
    expect(await pack.call("First", { value: arrayOf(2 * MiB, 3) })).toBe(3);
    const ended = Promise.withResolvers<void>();
    pack.onWorkerEnded(() => ended.resolve());
    relay.endWorker();
    await ended.promise;
    await untilOnLine(host);
    expect(await pack.call("First", { value: arrayOf(2 * MiB, 4) })).toBe(4);
    expect(relay.segments.numbers).toHaveLength(1);
  });
});

test("a host that is asked for its account of memory answers, and says that it keeps none", async () => {
  await using host = await opened(true);
  host.relay.tellHost("tell_memory", {});
  await until(() => host.relay.asked.some(([method]) => method === "memory"), "it has answered");
  expect(host.relay.asked.filter(([method]) => method === "memory")).toEqual([["memory", { report: null }]]);
});
