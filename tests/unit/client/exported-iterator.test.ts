import { describe, expect, test } from "bun:test";
import { type AnyIterable, ExportedIterator } from "../../../src/client/exported-iterator.ts";
import { type IncomingCall, runWithin } from "../../../src/client/incoming-call.ts";
import { ManualClock } from "../../../src/transport/clock.ts";
import { rejectionOf } from "../../support/errors.ts";

function exported(source: AnyIterable, clock = new ManualClock()): ExportedIterator {
  return new ExportedIterator(source, clock);
}

describe("a batch", () => {
  test("has as many items as are asked for and ready, and says when there are no more", async () => {
    const iterator = exported([1, 2, 3, 4, 5].values());
    expect(await iterator.take(2)).toEqual([[1, 2], false]);
    expect(await iterator.take(3)).toEqual([[3, 4, 5], false]);
    expect(await iterator.take(3)).toEqual([[], true]);
    expect(await exported(["only"]).take(64)).toEqual([["only"], true]);
    expect(await exported([]).take(64)).toEqual([[], true]);
  });

  test("of a source that waits ends with what was there", async () => {
    const gate = Promise.withResolvers<void>();
    const iterator = exported(
      (async function* () {
        yield* [1, 2];
        await gate.promise;
        yield 3;
      })(),
    );
    expect(await iterator.take(64)).toEqual([[1, 2], false]);
    const next = iterator.take(64);
    gate.resolve();
    const [items, isEnded] = await next;
    expect(items).toEqual([3]);
    expect(isEnded ? [[], true] : await iterator.take(1)).toEqual([[], true]);
  });

  test("ends where its items get large", async () => {
    const large = () => new Uint8Array(600_000);
    const iterator = exported([large(), { image: [large()] }, large(), large()]);
    const lengths: number[] = [];
    for (let isEnded = false; !isEnded; ) {
      const [items, ended] = await iterator.take(64);
      lengths.push(items.length);
      isEnded = ended;
    }
    expect(lengths.filter((length) => length > 0)).toEqual([2, 2]);
  });

  test("ends where its items take time", async () => {
    const clock = new ManualClock();
    const slow = (function* () {
      for (let index = 0; ; index++) {
        clock.advance(2);
        yield index;
      }
    })();
    const [items] = await exported(slow, clock).take(64);
    expect(items.length).toBeGreaterThan(1);
    expect(items.length).toBeLessThan(6);
  });

  test("that nobody waits for any more is the next one's", async () => {
    const iterator = exported([1, 2, 3].values());
    const controller = new AbortController();
    const given = runWithin({ signal: controller.signal } as IncomingCall, () => iterator.take(2));
    controller.abort();
    await given;
    expect(await iterator.take(5)).toEqual([[1, 2, 3], true]);
  });

  test("waits for the one before it", async () => {
    const iterator = exported(
      (async function* () {
        for (let index = 0; index < 4; index++) {
          await new Promise((resolve) => setImmediate(resolve));
          yield index;
        }
      })(),
    );
    const batches = await Promise.all([iterator.take(1), iterator.take(1), iterator.take(1)]);
    expect(batches.map(([items]) => items)).toEqual([[0], [1], [2]]);
  });
});

describe("a failure", () => {
  test("comes after the items before it, once, and is the end", async () => {
    const iterator = exported(
      (function* () {
        yield 1;
        throw new RangeError("no more memory");
      })(),
    );
    expect(await iterator.take(5)).toEqual([[1], false]);
    expect(await iterator.take(5).catch((error: unknown) => error)).toBeInstanceOf(RangeError);
    expect(await iterator.take(5)).toEqual([[], true]);
  });

  test("of a source that can't even be begun is that of the first batch", async () => {
    const iterator = exported({
      [Symbol.iterator]() {
        throw new TypeError("not yet");
      },
    });
    expect(await iterator.take(1).catch((error: unknown) => error)).toBeInstanceOf(TypeError);
  });

  test.each([0, -1, 0.5, "2", undefined])("is told for a count of %p", async (count) => {
    expect((await rejectionOf((async () => await exported([1]).take(count))())).code).toBe("bad_request");
  });
});

describe("closing", () => {
  function logged() {
    const log: string[] = [];
    const source = (function* () {
      try {
        yield* [1, 2, 3];
      } finally {
        log.push("closed");
      }
    })();
    return { log, source };
  }

  test("runs the source's own end, and nothing comes after it", async () => {
    const { log, source } = logged();
    const iterator = exported(source);
    await iterator.take(1);
    await iterator.close();
    expect(log).toEqual(["closed"]);
    expect(await iterator.take(1)).toEqual([[], true]);
    await iterator.close();
    expect(log).toEqual(["closed"]);
  });

  test("does not wait for a source that is at a step", async () => {
    const iterator = exported(
      (async function* () {
        await new Promise(() => undefined);
        yield 1;
      })(),
    );
    void iterator.take(1);
    await Promise.resolve();
    await iterator.close();
  });

  test("happens by itself where a source that was begun is dropped, and not where nobody took from it", async () => {
    const begun = logged();
    const iterator = exported(begun.source);
    await iterator.take(1);
    iterator.drop();
    expect(begun.log).toEqual(["closed"]);
    const untouched = logged();
    exported(untouched.source).drop();
    expect([...untouched.source]).toEqual([1, 2, 3]);
  });
});
