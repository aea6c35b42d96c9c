/**
 * What holds over every transport. Nodes are functions that run in a worker made of the client's own classes, so that
 * each case shows both sides of the wire.
 */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { originOf } from "../../src/client/stand-ins.ts";
import {
  type AirlockError,
  currentCall,
  Keywords,
  NdArray,
  type Progress,
  type RemoteFunction,
  RemoteIterator,
  RemoteObject,
  remote,
  Tuple,
} from "../../src/index.ts";
import { rejectionOf } from "../support/errors.ts";
import { temporaryFolders } from "../support/folders.ts";
import { collected, until } from "../support/until.ts";
import type { OpenWorld, World } from "./worlds.ts";

type Inputs = Record<string, unknown>;

/** To be called once in a describe block: the cases of this file over one transport. */
export function conformanceCases(open: OpenWorld): void {
  const newFolder = temporaryFolders();
  let world: World;
  beforeEach(async () => {
    world = await open(newFolder());
  });
  afterEach(async () => {
    await world[Symbol.asyncDispose]();
  });

  /** Adds a node and returns what calls it. */
  function node(run: (inputs: Inputs) => unknown): (inputs?: Inputs, options?: object) => Promise<unknown> {
    const name = `Node${world.nodes.size}`;
    world.nodes.set(name, run);
    return (inputs = {}, options = {}) => world.pack.call(name, inputs, options);
  }

  callCases(node, () => world);
  endingCases(node);
  nestingCases(node);
  referenceCases(node, () => world);
  objectCases(node);
  streamCases(node);
  eventCases(node, () => world);
}

type NewNode = (run: (inputs: Inputs) => unknown) => (inputs?: Inputs, options?: object) => Promise<unknown>;

function callCases(node: NewNode, world: () => World): void {
  test("a call gives what the node returned, types kept", async () => {
    const echo = node(({ value }) => Tuple.of(value));
    const value = { list: [1, 2.5, null], big: 2n ** 70n, set: new Set(["a"]), bytes: Uint8Array.of(1, 2) };
    expect(await echo({ value })).toEqual(Tuple.of(value));
  });

  test("calls overlap, and each gets its own answer", async () => {
    const gates = [0, 1, 2].map(() => Promise.withResolvers<number>());
    const wait = node(({ index }) => gates[index as number]?.promise);
    const answers = [0, 1, 2].map((index) => wait({ index }));
    for (const index of [2, 0, 1]) gates[index]?.resolve(index * 10);
    expect(await Promise.all(answers)).toEqual([0, 10, 20]);
  });

  test("an error of Airlock's own arrives as itself", async () => {
    const error = await rejectionOf(world().pack.call("Missing"));
    expect([error.code, error.message]).toEqual(["node_not_found", "the pack has no node Missing"]);
  });

  test("an exception arrives with its classes, its message and its stack", async () => {
    class ModelError extends RangeError {}
    const fail = node(() => {
      throw new ModelError("no such layer");
    });
    const { code, message, details } = await rejectionOf(fail());
    expect([code, message]).toEqual(["remote_exception", "RangeError: no such layer"]);
    expect(details.exception?.types).toEqual(["javascript:ModelError", "javascript:RangeError"]);
    expect(details.exception?.args).toEqual(["no such layer"]);
    expect(details.exception?.traceback).toContain("cases.ts");
  });

  test("a result that cannot cross is the error of that call alone", async () => {
    const fail = node(() => ({ where: [new URL("file:///")] }));
    const error = await rejectionOf(fail());
    expect([error.code, error.message]).toEqual([
      "value_unsupported",
      "value.where[0] is a URL, which cannot cross to Python",
    ]);
    expect(await node(() => 1)()).toBe(1);
  });

  test("progress is told as it comes, with how far it is", async () => {
    const told: Progress[] = [];
    const slow = node(() => {
      currentCall()?.progress({ message: "sampling", value: 3, total: 20 });
      currentCall()?.progress({ stage: "decoding" });
      return "done";
    });
    expect(await slow({}, { onProgress: (progress: Progress) => told.push(progress) })).toBe("done");
    expect(told).toEqual([
      { pack: "blur", stage: "running", message: "sampling", value: 3, total: 20 },
      { pack: "blur", stage: "decoding", message: "" },
    ]);
  });

  test("large bodies cross whole, several each way at once", async () => {
    const data = new Uint8Array(6_000_000).map((_, index) => index * 31);
    const image = new NdArray("tensor", "uint8", [data.byteLength], data);
    const echo = node(async ({ value, callback }) => [value, await (callback as RemoteFunction)(value)]);
    const callback = (value: unknown) => value;
    const answers = await Promise.all([1, 2, 3].map(() => echo({ value: image, callback })));
    for (const answer of answers as [NdArray, NdArray][]) {
      for (const { data: received } of answer) expect(Buffer.compare(received, data)).toBe(0);
    }
  });

  test("nobody has a method that is not in the protocol", async () => {
    await node(() => 1)();
    const error = await rejectionOf(world().worker.callHost("eval", "1"));
    expect([error.code, error.message]).toEqual(["bad_request", 'this side has no method "eval"']);
  });
}

function endingCases(node: NewNode): void {
  test("aborting ends the wait with the signal's reason, and the node is told", async () => {
    const begun = Promise.withResolvers<AbortSignal>();
    const wait = node(() => {
      const { signal } = currentCall() ?? expect.unreachable();
      begun.resolve(signal);
      return new Promise(() => undefined);
    });
    const controller = new AbortController();
    const call = wait({}, { signal: controller.signal });
    call.catch(() => undefined);
    const signal = await begun.promise;
    const reason = new Error("enough");
    controller.abort(reason);
    expect(await call.catch((error: unknown) => error)).toBe(reason);
    await until(() => signal.aborted, "the node is told");
    expect((signal.reason as AirlockError).code).toBe("cancelled");
  });

  test("a deadline ends the wait, and the node is told", async () => {
    let signal: AbortSignal | undefined;
    const wait = node(() => {
      signal = currentCall()?.signal;
      return new Promise(() => undefined);
    });
    const error = await rejectionOf(wait({}, { deadlineMs: 40 }));
    expect([error.code, error.message]).toEqual([
      "deadline_exceeded",
      "pack blur: the call took longer than its deadline of 40 ms",
    ]);
    await until(() => signal?.aborted === true, "the node is told");
  });

  test("what was cancelled and answers all the same disturbs nobody", async () => {
    const gate = Promise.withResolvers<string>();
    const begun = Promise.withResolvers<void>();
    const wait = node(() => {
      begun.resolve();
      return gate.promise;
    });
    const controller = new AbortController();
    const call = wait({}, { signal: controller.signal });
    call.catch(() => undefined);
    await begun.promise;
    controller.abort();
    gate.resolve("late");
    await call.catch(() => undefined);
    expect(await node(() => "next")()).toBe("next");
  });
}

function nestingCases(node: NewNode): void {
  test("callbacks nest three deep, each for the one before", async () => {
    const order: string[] = [];
    const outer = node(async ({ back }) => {
      order.push("node");
      const inner = async (value: unknown, further: RemoteFunction) => {
        order.push("inner");
        return `inner(${String(await further(value))})`;
      };
      return `node(${String(await (back as RemoteFunction)("x", inner))})`;
    });
    const back = async (value: unknown, inner: RemoteFunction) => {
      order.push("back");
      const further = (text: unknown) => {
        order.push("further");
        return `further(${String(text)})`;
      };
      return `back(${String(await inner(value, further))})`;
    };
    expect(await outer({ back })).toBe("node(back(inner(further(x))))");
    expect(order).toEqual(["node", "back", "inner", "further"]);
  });

  test("cancelling the outermost call ends all that was made for it", async () => {
    const signals: AbortSignal[] = [];
    const here = () => {
      const { signal } = currentCall() ?? expect.unreachable();
      signals.push(signal);
    };
    const deepest = Promise.withResolvers<void>();
    const outer = node(async ({ back }) => {
      here();
      const inner = async () => {
        here();
        deepest.resolve();
        await new Promise(() => undefined);
      };
      await (back as RemoteFunction)(inner);
    });
    const failures: unknown[] = [];
    const back = async (inner: RemoteFunction) => {
      here();
      await inner().catch((error: unknown) => failures.push((error as AirlockError).code));
    };
    const controller = new AbortController();
    const call = outer({ back }, { signal: controller.signal });
    call.catch(() => undefined);
    await deepest.promise;
    controller.abort();
    await until(() => signals.length === 3 && signals.every(({ aborted }) => aborted), "all are told");
    await until(() => failures.length === 1, "the call in the middle has failed");
    expect(failures).toEqual(["cancelled"]);
  });

  test("a deadline travels down", async () => {
    const outer = node(async ({ back }) => await (back as RemoteFunction)(() => new Promise(() => undefined)));
    let nested: Promise<AirlockError> | undefined;
    const back = async (inner: RemoteFunction) => {
      nested = rejectionOf(inner());
      await nested;
    };
    expect((await rejectionOf(outer({ back }, { deadlineMs: 60 }))).code).toBe("deadline_exceeded");
    expect((await nested)?.code).toBeOneOf(["deadline_exceeded", "cancelled"]);
  });

  test("an exception goes through all callers as what it was", async () => {
    const outer = node(async ({ back }) => await (back as RemoteFunction)());
    const back = () => {
      throw new TypeError("not a model");
    };
    const { code, details } = await rejectionOf(outer({ back }));
    expect([code, details.exception?.types[0], details.exception?.message]).toEqual([
      "remote_exception",
      "javascript:TypeError",
      "not a model",
    ]);
  });

  test("a call that outlives the callback it was made in is nobody's", async () => {
    const later = Promise.withResolvers<void>();
    const outer = node(async ({ back }) => await (back as RemoteFunction)());
    const echo = node(({ value }) => value);
    let detached: Promise<unknown> | undefined;
    const back = () => {
      detached = later.promise.then(() => echo({ value: "still fine" }));
      return null;
    };
    await outer({ back });
    later.resolve();
    expect(await detached).toBe("still fine");
  });

  test("progress of a callback reaches the node that called", async () => {
    const told: unknown[] = [];
    const outer = node(async ({ back }) => {
      const onProgress = ({ message, value }: Progress): number => told.push([message, value]);
      await (back as RemoteFunction).options({ onProgress })();
    });
    await outer({ back: () => currentCall()?.progress({ message: "half", value: 0.5 }) });
    expect(told).toEqual([["half", 0.5]]);
  });
}

function referenceCases(node: NewNode, world: () => World): void {
  test("a function is called where it lives, with positional and keyword arguments", async () => {
    const call = node(async ({ f }) => await (f as RemoteFunction)(1, "two", new Keywords({ scale: 3 })));
    const f = (one: number, two: string, { scale }: { scale: number }) => [one, two, scale];
    expect(await call({ f })).toEqual([1, "two", 3]);
  });

  test("a reference received twice is one stand-in, also inside containers", async () => {
    const kept: unknown[] = [];
    const keep = node((inputs) => void kept.push(inputs["f"], (inputs["list"] as unknown[])[0]));
    const f = () => 1;
    await keep({ f, list: [f] });
    await keep({ f, list: Tuple.of(f) });
    expect(new Set(kept).size).toBe(1);
  });

  test("what comes home is the object itself", async () => {
    const f = () => 1;
    const model = { weights: [1, 2] };
    const stream = (function* () {
      yield 1;
    })();
    const echo = node(({ value }) => value);
    expect(await echo({ value: f })).toBe(f);
    expect(await echo({ value: new Map([["model", remote(model)]]) })).toEqual({ model });
    expect(((await echo({ value: [remote(model)] })) as unknown[])[0]).toBe(model);
    expect(await echo({ value: stream })).toBe(stream);
  });

  test("a stand-in that is sent back is the object itself there", async () => {
    const model = remote({ name: "sdxl" });
    const load = node(() => model);
    let seen: unknown;
    const use = node(({ value }) => {
      seen = value;
    });
    const loaded = await load();
    expect(loaded).toBeInstanceOf(RemoteObject);
    await use({ value: loaded });
    expect(seen).toBe(model.object);
  });

  test("an object is let go of once the other side has dropped its stand-in", async () => {
    const drop = node(() => null);
    const weak = await (async () => {
      const f = () => new Array(10);
      await drop({ f });
      return new WeakRef(f);
    })();
    await collected(() => weak.deref() === undefined, "the function is garbage");
  });

  test("an object is held as long as the other side has its stand-in", async () => {
    const held: RemoteFunction[] = [];
    const keep = node(({ f }) => void held.push(f as RemoteFunction));
    await (async () => await keep({ f: () => "alive" }))();
    for (let round = 0; round < 5; round++) {
      Bun.gc(true);
      await Bun.sleep(2);
    }
    expect(await node(async () => await held[0]?.())()).toBe("alive");
  });

  test("one that is on its way again when its stand-in is dropped is not lost", async () => {
    const f = () => "still here";
    const call = node(async ({ g }) => await (g as RemoteFunction)());
    for (let round = 0; round < 30; round++) {
      if (round % 5 === 0) Bun.gc(true);
      expect(await call({ g: f })).toBe("still here");
    }
  });

  test("what a cancelled call returns late is given back", async () => {
    const gate = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const made: WeakRef<object>[] = [];
    const make = node(async () => {
      begun.resolve();
      await gate.promise;
      const f = () => new Array(10);
      made.push(new WeakRef(f));
      return f;
    });
    const controller = new AbortController();
    const call = make({}, { signal: controller.signal });
    call.catch(() => undefined);
    await begun.promise;
    controller.abort();
    gate.resolve();
    await until(() => made.length === 1, "it was made");
    await collected(() => made[0]?.deref() === undefined, "what it made is garbage");
  });

  test("arguments of a call that fails to be written are not held", async () => {
    const take = node(() => null);
    const weak = await (async () => {
      const f = () => new Array(10);
      expect((await rejectionOf(take({ f, bad: new URL("file:///") }))).code).toBe("value_unsupported");
      return new WeakRef(f);
    })();
    await collected(() => weak.deref() === undefined, "the function is garbage");
  });

  test("once the worker has ended, its objects are gone and it holds none", async () => {
    const { endWorker, pack } = world();
    if (endWorker === undefined) return;
    const ended = Promise.withResolvers<void>();
    pack.onWorkerEnded(() => ended.resolve());
    const kept: unknown[] = [];
    const swap = node(({ f }) => {
      kept.push(f);
      return () => 1;
    });
    const [theirs, ours] = await (async () => {
      const f = () => new Array(10);
      return [(await swap({ f })) as RemoteFunction, new WeakRef(f)] as const;
    })();
    endWorker();
    await ended.promise;
    await until(
      async () => (await theirs().catch((error: AirlockError) => error.code)) === "reference_gone",
      "it is gone",
    );
    expect((await rejectionOf(node(() => null)({ theirs }))).code).toBe("reference_gone");
    await collected(() => ours.deref() === undefined, "what the worker held is garbage");
    expect(await node(() => "fresh")()).toBe("fresh");
  });

  test("calls under way fail as their worker ends, and the next has a fresh one", async () => {
    const { endWorker } = world();
    if (endWorker === undefined) return;
    const begun = Promise.withResolvers<void>();
    const wait = node(() => {
      begun.resolve();
      return new Promise(() => undefined);
    });
    const call = rejectionOf(wait());
    await begun.promise;
    endWorker();
    expect((await call).code).toBe("worker_died");
    expect(await node(() => "fresh")()).toBe("fresh");
  });

  test("a class does not cross", async () => {
    const error = await rejectionOf(node(() => null)({ value: class Model {} }));
    expect(error.code).toBe("value_unsupported");
  });
}

class Counter {
  count = 0;
  readonly label = "clicks";
  _secret = 1;

  add(by: number, { twice = false } = {}): number {
    this.count += twice ? 2 * by : by;
    return this.count;
  }

  _reset(): void {
    this.count = 0;
  }
}

function objectCases(node: NewNode): void {
  const counterOf = (inputs: Inputs): RemoteObject => inputs["counter"] as RemoteObject;

  test("an object that was opened is used by its public names", async () => {
    const counter = new Counter();
    const use = node(async (inputs) => {
      const theirs = counterOf(inputs);
      const add = (await theirs.get("add")) as (by: number) => Promise<number>;
      return [
        await theirs.invoke("add", 2),
        await theirs.invoke("add", 1, new Keywords({ twice: true })),
        await add(5),
        await theirs.get("count"),
        await theirs.get("label"),
        theirs.type,
      ];
    });
    expect(await use({ counter: remote(counter) })).toEqual([2, 4, 9, 9, "clicks", "javascript:Counter"]);
  });

  test.each([
    "_secret",
    "_reset",
    "constructor",
    "__proto__",
    "prototype",
    "toString",
    "hasOwnProperty",
    "nothing",
    "",
  ])("an object shows nothing under the name %p", async (name) => {
    const use = node(async (inputs) => {
      const theirs = counterOf(inputs);
      const outcomes = [theirs.get(name), theirs.invoke(name)];
      return await Promise.all(outcomes.map((outcome) => outcome.catch((error: AirlockError) => error.code)));
    });
    expect(await use({ counter: remote(new Counter()) })).toEqual(["bad_request", "bad_request"]);
  });

  test("an object opened for some names shows no others", async () => {
    const use = node(async (inputs) => {
      const theirs = counterOf(inputs);
      return [await theirs.invoke("add", 1), await theirs.get("label").catch((error: AirlockError) => error.code)];
    });
    expect(await use({ counter: remote(new Counter(), "add") })).toEqual([1, "bad_request"]);
  });

  test("an instance that was not opened does not cross", async () => {
    const error = await rejectionOf(node(() => null)({ counter: new Counter() }));
    expect([error.code, error.message]).toEqual([
      "value_unsupported",
      "value[2].counter is a Counter, which cannot cross to Python",
    ]);
  });
}

function streamCases(node: NewNode): void {
  async function* numbers(count: number, log?: (event: string) => void) {
    try {
      for (let index = 0; index < count; index++) {
        log?.(`${index}`);
        yield index;
      }
    } finally {
      log?.("closed");
    }
  }

  async function collect(stream: unknown): Promise<unknown[]> {
    const items: unknown[] = [];
    for await (const item of stream as AsyncIterable<unknown>) items.push(item);
    return items;
  }

  test("a node's stream arrives item by item, in order and whole", async () => {
    const make = node(() => numbers(500));
    const stream = await make();
    expect(stream).toBeInstanceOf(RemoteIterator);
    expect(await collect(stream)).toEqual(Array.from({ length: 500 }, (_, index) => index));
    expect(await (stream as RemoteIterator).next()).toEqual({ done: true, value: undefined });
  });

  test("a node reads a stream of the host's: generators, iterables, async iterables", async () => {
    const read = node(({ stream }) => collect(stream));
    expect(await read({ stream: numbers(3) })).toEqual([0, 1, 2]);
    expect(await read({ stream: [1, 2, 3].values() })).toEqual([1, 2, 3]);
    const iterable = {
      *[Symbol.iterator]() {
        yield* ["a", "b"];
      },
    };
    expect(await read({ stream: iterable })).toEqual(["a", "b"]);
    expect(await read({ stream: iterable })).toEqual(["a", "b"]);
  });

  test("a producer runs no further than it was asked to, and not before", async () => {
    let produced = 0;
    const make = node(() => numbers(100_000, () => (produced += 1)));
    const stream = (await make()) as RemoteIterator;
    expect(produced).toBe(0);
    await stream.next();
    expect(produced).toBeGreaterThan(0);
    expect(produced).toBeLessThanOrEqual(65);
    await stream.return();
  });

  test("items of a slow producer arrive as they come", async () => {
    const gates = [0, 1, 2].map(() => Promise.withResolvers<number>());
    const make = node(async function* () {
      for (const gate of gates) yield await gate.promise;
    });
    const stream = (await make()) as RemoteIterator;
    for (const [index, gate] of gates.entries()) {
      const next = stream.next();
      gate.resolve(index);
      expect(await next).toEqual({ done: false, value: index });
    }
  });

  test("leaving a stream early closes it where it lives", async () => {
    const log: string[] = [];
    const make = node(() => numbers(100_000, (event) => log.push(event)));
    for await (const item of (await make()) as AsyncIterable<number>) if (item === 3) break;
    await until(() => log.includes("closed"), "it is closed");
  });

  test("a stream that nobody holds any more is closed where it lives", async () => {
    const log: string[] = [];
    const make = node(() => numbers(100_000, (event) => log.push(event)));
    await (async () => await ((await make()) as RemoteIterator).next())();
    await collected(() => log.includes("closed"), "it is closed");
  });

  test("an exception comes after the items before it", async () => {
    const make = node(async function* () {
      yield 1;
      yield 2;
      throw new RangeError("out of memory");
    });
    const items: unknown[] = [];
    const reading = (async () => {
      for await (const item of (await make()) as AsyncIterable<unknown>) items.push(item);
    })();
    expect((await rejectionOf(reading)).details.exception?.message).toBe("out of memory");
    expect(items).toEqual([1, 2]);
  });

  test("items may be references, and arrays", async () => {
    const make = node(async function* () {
      yield () => "called";
      yield NdArray.float32([2], new Float32Array([1, 2]));
    });
    const [f, array] = (await collect(await make())) as [RemoteFunction, NdArray];
    expect(await f()).toBe("called");
    expect([...array.toFloat32()]).toEqual([1, 2]);
  });

  test.each([
    ["ref_take", () => () => 1],
    ["ref_get", () => () => 1],
    ["ref_close", () => remote({})],
    ["ref_call", () => remote({})],
    ["ref_call", () => numbers(1)],
    ["ref_method", () => numbers(1)],
    ["ref_steal", () => () => 1],
  ])("%s is refused where the kind of a reference is not for it", async (method, make) => {
    const use = node(async ({ value }) => {
      const origin = originOf(value as object) ?? expect.unreachable();
      return (await rejectionOf(origin.call(method, ["name"], {}, value as object))).code;
    });
    expect(await use({ value: make() })).toBe("bad_request");
  });

  test.each([0, -1, 1.5, "all", null])("a count of %p is refused", async (count) => {
    const use = node(async ({ stream }) => {
      const origin = originOf(stream as object) ?? expect.unreachable();
      return (await rejectionOf(origin.call("ref_take", [count], {}, stream as object))).code;
    });
    expect(await use({ stream: numbers(1) })).toBe("bad_request");
  });
}

function eventCases(node: NewNode, world: () => World): void {
  test("a worker's events reach those who listen, until they stop", async () => {
    const heard: unknown[] = [];
    const stop = world().pack.on("preview", (value) => heard.push(value));
    const emit = node(async ({ value }) => {
      await world().worker.pair.emit("preview", value);
      await world().worker.pair.emit("other", value);
    });
    await emit({ value: 1 });
    await until(() => heard.length === 1, "the event is heard");
    stop();
    await emit({ value: 2 });
    await emit({ value: 3 });
    expect(heard).toEqual([1]);
  });

  test("a host's events reach the worker that runs", async () => {
    await node(() => null)();
    const f = () => "from the host";
    await world().pack.emit("interrupt", { f, why: "asked" });
    await until(() => world().worker.events.length === 1, "the event is heard");
    const [[name, value]] = world().worker.events as [[string, { f: RemoteFunction; why: string }]];
    expect([name, value.why, await value.f()]).toEqual(["interrupt", "asked", "from the host"]);
  });
}
