import { describe, expect, test } from "bun:test";
import { ManualClock } from "../../../src/transport/clock.ts";
import { AirlockError } from "../../../src/transport/errors.ts";
import { type ExecuteOptions, executeWorkflow, type NodeEvent } from "../../../src/workflow/execute.ts";
import { failureOf, load, type MemoryNode, memoryPack, type NodeFunction } from "./packs.ts";

const hiddenId = { hidden: { id: "UNIQUE_ID" } };

function source(run: NodeFunction, rest: MemoryNode = {}): MemoryNode {
  return { inputs: hiddenId, outputTypes: ["*"], run, ...rest };
}

function pipe(run: NodeFunction, rest: MemoryNode = {}): MemoryNode {
  return { inputs: { optional: { a: ["*"], b: ["*"] }, ...hiddenId }, outputTypes: ["*"], run, ...rest };
}

const collect = pipe(({ a }) => [a], { outputNode: true });

const node = (classType: string, a?: unknown, b?: unknown) => ({
  class_type: classType,
  inputs: { ...(a !== undefined && { a }), ...(b !== undefined && { b }) },
});

function execute(
  prompt: Record<string, unknown>,
  nodes: Record<string, MemoryNode>,
  options: Partial<ExecuteOptions> = {},
) {
  return executeWorkflow(load(prompt, memoryPack("pack", nodes)), { clock: new ManualClock(), ...options });
}

/** A promise that a test settles; a call that waits on it ends when its signal aborts. */
function gate() {
  const { promise, resolve } = Promise.withResolvers<void>();
  const wait = (signal?: AbortSignal) => {
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
    return Promise.race([promise, aborted]);
  };
  return { open: resolve, wait };
}

describe("values", () => {
  test("lists run through a workflow as they do in ComfyUI", async () => {
    const { outputs, nodes } = await execute(
      {
        1: { class_type: "Split", inputs: { count: 3 } },
        2: node("Add", ["1", 0], ["1", 1]),
        3: node("Total", ["2", 0]),
        4: node("Collect", ["2", 0]),
        5: node("Collect", ["3", 0]),
      },
      {
        Split: {
          inputs: { required: { count: ["INT"] } },
          outputTypes: ["INT", "INT"],
          outputIsList: [true, false],
          run: ({ count }) => [Array.from({ length: Number(count) }, (_, index) => index), 10],
        },
        Add: pipe(({ a, b }) => [Number(a) + Number(b)]),
        Total: pipe(({ a }) => [(a as number[]).reduce((sum, value) => sum + value)], { inputIsList: true }),
        Collect: collect,
      },
    );
    expect(outputs.get("4")).toEqual([[10, 11, 12]]);
    expect(outputs.get("5")).toEqual([[33]]);
    expect([...outputs.keys()].sort()).toEqual(["4", "5"]);
    const calls = Object.fromEntries(nodes.map((report) => [report.id, report.calls]));
    expect(calls).toEqual({ 1: 1, 2: 3, 3: 1, 4: 3, 5: 1 });
  });

  test("hidden inputs are filled", async () => {
    const prompt = { 7: { class_type: "Hidden", inputs: {}, _meta: { title: "T" } } };
    const hidden = {
      prompt: "PROMPT",
      id: "UNIQUE_ID",
      info: "EXTRA_PNGINFO",
      dynamic: "DYNPROMPT",
      token: "AUTH_TOKEN_COMFY_ORG",
      odd: ["PROMPT"],
    };
    const hiddenNode = { inputs: { hidden }, outputTypes: ["*"], outputNode: true };
    const single = await execute(prompt, { Hidden: { ...hiddenNode, run: (inputs) => [inputs] } });
    expect(single.outputs.get("7")).toEqual([[{ prompt, id: "7", info: {}, token: null }]]);
    const listed = await execute(prompt, { Hidden: { ...hiddenNode, inputIsList: true, run: ({ id }) => [id] } });
    expect(listed.outputs.get("7")).toEqual([[["7"]]]);
  });

  test("defaults aren't filled in", async () => {
    const { outputs } = await execute(
      { 1: { class_type: "N", inputs: {} } },
      {
        N: {
          inputs: { optional: { x: ["INT", { default: 5 }] } },
          outputTypes: ["*"],
          outputNode: true,
          run: (inputs) => [Object.keys(inputs)],
        },
      },
    );
    expect(outputs.get("1")).toEqual([[[]]]);
  });

  test("ui is reported by node", async () => {
    const show = pipe(({ id }) => ({ ui: { text: [`shown by ${id}`] } }), { outputNode: true, outputTypes: [] });
    const { ui, outputs } = await execute({ 1: node("Show"), 2: node("Show") }, { Show: show });
    expect(ui).toEqual({ 1: { text: ["shown by 1"] }, 2: { text: ["shown by 2"] } });
    expect(outputs.get("1")).toEqual([]);
  });
});

describe("order", () => {
  test("a shared node runs once, and unneeded ones never", async () => {
    const ran: unknown[] = [];
    const record: NodeFunction = ({ id }) => [ran.push(id)];
    await execute(
      {
        1: node("Source"),
        2: node("Pipe", ["1", 0]),
        3: node("Collect", ["1", 0], ["2", 0]),
        4: node("Pipe", ["1", 0]),
      },
      { Source: source(record), Pipe: pipe(record), Collect: pipe(record, { outputNode: true }) },
    );
    expect(ran).toEqual(["1", "2", "3"]);
  });

  test("one at a time, a branch is finished before another begins", async () => {
    const ran: unknown[] = [];
    const record: NodeFunction = ({ id }) => [ran.push(id)];
    const prompt: Record<string, unknown> = {};
    for (const branch of ["a", "b", "c"]) {
      prompt[`load-${branch}`] = node("Source");
      prompt[`blur-${branch}`] = node("Pipe", [`load-${branch}`, 0]);
      prompt[`save-${branch}`] = node("Collect", [`blur-${branch}`, 0]);
    }
    const nodes = { Source: source(record), Pipe: pipe(record), Collect: pipe(record, { outputNode: true }) };
    await execute(prompt, nodes, { concurrency: 1 });
    expect(ran).toEqual(["a", "b", "c"].flatMap((branch) => [`load-${branch}`, `blur-${branch}`, `save-${branch}`]));
  });

  test.each([1, 3])("at most %i nodes run at a time", async (concurrency) => {
    const release = gate();
    let running = 0;
    let runningMax = 0;
    const slow = pipe(
      async ({ id }, signal) => {
        running += 1;
        runningMax = Math.max(runningMax, running);
        if (running === concurrency) release.open();
        await release.wait(signal);
        running -= 1;
        return [id];
      },
      { outputNode: true },
    );
    const prompt = Object.fromEntries(Array.from({ length: 8 }, (_, id) => [`n${id}`, node("Slow")]));
    await execute(prompt, { Slow: slow }, { concurrency });
    expect(runningMax).toBe(concurrency);
  });

  /** Nodes that wait until so many of them have begun, in packs with so many workers each. */
  function meeting(count: number, workersMax: readonly number[], isAsync = false) {
    const met = gate();
    let begun = 0;
    const run: NodeFunction = async ({ id }, signal) => {
      begun += 1;
      if (begun === count) met.open();
      await met.wait(signal);
      return [id];
    };
    return workersMax.map((max, at) =>
      memoryPack(`p${at}`, { [`Meet${at}`]: pipe(run, { outputNode: true, isAsync }) }, max),
    );
  }

  test.each<[string, string[], number[], boolean]>([
    ["nodes of a pack with as many workers", ["Meet0", "Meet0", "Meet0", "Meet0", "Meet0", "Meet0"], [6], false],
    ["nodes of different packs", ["Meet0", "Meet1", "Meet2"], [1, 1, 1], false],
    ["async nodes of one worker", ["Meet0", "Meet0", "Meet0"], [1], true],
  ])("%s run side by side", async (_, classes, workersMax, isAsync) => {
    const packs = meeting(classes.length, workersMax, isAsync);
    const prompt = Object.fromEntries(classes.map((each, id) => [`n${id}`, node(each)]));
    const { nodes } = await executeWorkflow(load(prompt, ...packs), { clock: new ManualClock() });
    expect(nodes.length).toBe(classes.length);
  });

  test("nodes of a pack with one worker follow one another, in the order of the workflow", async () => {
    const events: string[] = [];
    const prompt = Object.fromEntries(["a", "b", "c"].map((id) => [id, node("Collect")]));
    const workflow = load(prompt, memoryPack("pack", { Collect: collect }, 1));
    const onNode = ({ kind, id }: NodeEvent) => events.push(`${kind} ${id}`);
    await executeWorkflow(workflow, { clock: new ManualClock(), onNode });
    expect(events).toEqual(["a", "b", "c"].flatMap((id) => [`started ${id}`, `finished ${id}`]));
  });

  test("the calls of an async node overlap and keep their order; others follow one another", async () => {
    const starts: Record<string, number[]> = { Async: [], Sync: [] };
    const finish = { Async: 0, Sync: 0 };
    const slow =
      (kind: "Async" | "Sync"): NodeFunction =>
      async ({ a }) => {
        starts[kind]?.push(finish[kind]);
        for (let turn = Number(a); turn < 5; turn += 1) await Promise.resolve();
        finish[kind] += 1;
        return [a];
      };
    const { outputs } = await execute(
      { 1: node("Source"), 2: node("Async", ["1", 0]), 3: node("Sync", ["1", 0]) },
      {
        Source: source(() => [[0, 1, 2, 3]], { outputIsList: [true] }),
        Async: pipe(slow("Async"), { isAsync: true, outputNode: true }),
        Sync: pipe(slow("Sync"), { outputNode: true }),
      },
      { concurrency: 3 },
    );
    // How many calls had ended when each began.
    expect(starts["Async"]?.slice(0, 3)).toEqual([0, 0, 0]);
    expect(starts["Sync"]).toEqual([0, 1, 2, 3]);
    expect(outputs.get("2")).toEqual([[0, 1, 2, 3]]);
    expect(outputs.get("3")).toEqual([[0, 1, 2, 3]]);
  });

  test.each([0, -1, 1.5, Number.NaN])("a concurrency of %p is refused", async (concurrency) => {
    const failure = await failureOf(() => execute({ 1: node("Collect") }, { Collect: collect }, { concurrency }));
    expect(failure.code).toBe("bad_request");
  });
});

describe("reports", () => {
  test("each node tells when it starts and ends, with the time and the calls it took", async () => {
    const clock = new ManualClock();
    const taking = (ms: number, answer: unknown) => () => {
      clock.advance(ms);
      return [answer];
    };
    const events: NodeEvent[] = [];
    const { nodes } = await execute(
      { 1: { ...node("Source"), _meta: { title: "Numbers" } }, 2: node("Collect", ["1", 0]) },
      {
        Source: source(taking(5, [1, 2]), { outputIsList: [true] }),
        Collect: pipe(taking(2, 0), { outputNode: true }),
      },
      { clock, onNode: (event) => events.push(event) },
    );
    const one = { id: "1", classType: "Source", title: "Numbers", pack: "pack" };
    const two = { id: "2", classType: "Collect", title: "Collect", pack: "pack" };
    expect(nodes).toEqual([
      { ...one, ms: 5, calls: 1 },
      { ...two, ms: 4, calls: 2 },
    ]);
    expect(events).toEqual([
      { kind: "started", ...one },
      { kind: "finished", ...one, ms: 5, calls: 1 },
      { kind: "started", ...two },
      { kind: "finished", ...two, ms: 4, calls: 2 },
    ]);
  });

  test("an observer that throws ends the run", async () => {
    const onNode = () => {
      throw new Error("full disk");
    };
    const failure = await failureOf(() => execute({ 1: node("Collect") }, { Collect: collect }, { onNode }));
    expect([failure.code, failure.message]).toEqual(["internal_error", "full disk"]);
  });
});

describe("failures", () => {
  test("a node's error keeps its code and cause and names node, class and pack", async () => {
    const cause = new AirlockError("worker_died", "killed by SIGKILL", {
      exit: "killed by SIGKILL",
      log: "last words",
    });
    const boom = () => {
      throw cause;
    };
    const prompt = { 4: { ...node("Boom"), _meta: { title: "Big" } } };
    const failure = await failureOf(() => execute(prompt, { Boom: pipe(boom, { outputNode: true }) }));
    expect(failure.code).toBe("worker_died");
    expect(failure.message).toBe('node 4 "Big" (Boom) of pack "pack": killed by SIGKILL');
    expect(failure.details).toEqual({ ...cause.details, pack: "pack" });
    expect(failure.cause).toBe(cause);
  });

  test("what isn't an AirlockError is a fault of Airlock", async () => {
    const thrown = new TypeError("oops");
    const boom = () => {
      throw thrown;
    };
    const failure = await failureOf(() => execute({ 4: node("Boom") }, { Boom: pipe(boom, { outputNode: true }) }));
    expect([failure.code, failure.cause]).toEqual(["internal_error", thrown]);
  });

  test("other branches are cancelled, nothing new starts, and the run waits for what was under way", async () => {
    const never = gate();
    const log: string[] = [];
    const failure = await failureOf(() =>
      execute(
        { 1: node("Slow"), 2: node("Boom"), 3: node("Collect", ["1", 0]), 4: node("Collect", ["2", 0]) },
        {
          Slow: pipe(async (_, signal) => {
            try {
              await never.wait(signal);
            } catch (error) {
              log.push("told");
              await Promise.resolve();
              log.push("ended");
              throw error;
            }
          }),
          Boom: pipe(async () => {
            await Promise.resolve();
            throw new AirlockError("remote_exception", "ValueError: no");
          }),
          Collect: pipe(() => log.push("collected"), { outputNode: true }),
        },
        { onNode: (event) => event.kind === "failed" && log.push(`${event.id} ${event.error.code}`) },
      ),
    );
    expect(failure.message).toContain("node 2 (Boom)");
    expect(log.toSorted()).toEqual(["1 cancelled", "2 remote_exception", "ended", "told"]);
    expect(log.slice(-2)).toEqual(["ended", "1 cancelled"]);
  });

  test.each([
    ["that follow one another", false, [0, 1]],
    ["that overlap", true, [0, 1, 2]],
  ])("calls %s don't go on after one failed", async (_, isAsync, expected) => {
    const called: unknown[] = [];
    const boom: NodeFunction = async ({ a }) => {
      called.push(a);
      if (a === 1) throw new AirlockError("remote_exception", "no");
      for (let turn = 0; turn < 5; turn += 1) await Promise.resolve();
      return [a];
    };
    const nodes = {
      Source: source(() => [[0, 1, 2, 3, 4, 5]], { outputIsList: [true] }),
      Boom: pipe(boom, { isAsync, outputNode: true }),
    };
    const prompt = { 1: node("Source"), 2: node("Boom", ["1", 0]) };
    const failure = await failureOf(() => execute(prompt, nodes, { concurrency: 3 }));
    expect(failure.code).toBe("remote_exception");
    expect(called).toEqual(expected);
  });

  test("outputs that never came are an error where a node is linked to them", async () => {
    const silent = pipe(() => ({ ui: {} }), { outputNode: true });
    const alone = await execute({ 1: node("Silent") }, { Silent: silent });
    expect(alone.outputs.get("1")).toEqual([]);
    const prompt = { 1: node("Silent"), 2: node("Collect", ["1", 0]) };
    const failure = await failureOf(() => execute(prompt, { Silent: silent, Collect: collect }));
    expect(failure.code).toBe("node_invalid");
    expect(failure.message).toContain('node 1 (Silent) of pack "pack": it returned no outputs');
  });

  test("too few outputs name the node and its pack", async () => {
    const few = pipe(() => [1], { outputTypes: ["A", "B"], outputNode: true });
    const failure = await failureOf(() => execute({ 1: node("Few") }, { Few: few }));
    expect(failure.code).toBe("node_invalid");
    expect(failure.message).toBe('node 1 (Few) of pack "pack": it returned 1 outputs, but declares 2 (A, B)');
    expect(failure.details.pack).toBe("pack");
  });
});

describe("cancelling", () => {
  test.each<[string, unknown, string]>([
    ["by the user", undefined, "cancelled"],
    ["by a deadline", new DOMException("late", "TimeoutError"), "deadline_exceeded"],
    ["by Airlock", new AirlockError("server_stopping", "bye"), "server_stopping"],
  ])("%s ends the calls under way", async (_, reason, code) => {
    const controller = new AbortController();
    const never = gate();
    const called: unknown[] = [];
    const wait: NodeFunction = async ({ id }, signal) => {
      called.push(id);
      await never.wait(signal);
    };
    const running = execute(
      { 1: node("Wait"), 2: node("Wait"), 3: node("Collect", ["1", 0]) },
      { Wait: pipe(wait, { outputNode: true }), Collect: collect },
      { signal: controller.signal },
    );
    controller.abort(reason);
    const failure = await failureOf(() => running);
    expect(failure.code).toBe(code as AirlockError["code"]);
    expect(called).toEqual(["1", "2"]);
  });

  test("the calls that a node has left don't start", async () => {
    const controller = new AbortController();
    const called: unknown[] = [];
    const deaf: NodeFunction = async ({ a }) => {
      called.push(a);
      if (a === 1) controller.abort();
      return [a];
    };
    const nodes = {
      Source: source(() => [[0, 1, 2]], { outputIsList: [true] }),
      Deaf: pipe(deaf, { outputNode: true }),
    };
    const prompt = { 1: node("Source"), 2: node("Deaf", ["1", 0]) };
    const failure = await failureOf(() => execute(prompt, nodes, { signal: controller.signal }));
    expect(failure.code).toBe("cancelled");
    expect(called).toEqual([0, 1]);
  });

  test("a run whose signal is already aborted calls nothing", async () => {
    const called: unknown[] = [];
    const record = pipe(() => [called.push(1)], { outputNode: true });
    const signal = AbortSignal.abort();
    const failure = await failureOf(() => execute({ 1: node("Record") }, { Record: record }, { signal }));
    expect([failure.code, called.length]).toEqual(["cancelled", 0]);
  });
});

test("outputs that no node needs any more can be collected while the run goes on", async () => {
  const length = 40;
  const made: WeakRef<object>[] = [];
  const make: NodeFunction = async () => {
    const value = { bytes: new Uint8Array(1024) };
    made.push(new WeakRef(value));
    // An object is kept until its turn of the event loop is over: WeakRef promises that.
    await Bun.sleep(0);
    return [value];
  };
  let aliveCount = -1;
  const last = pipe(
    async () => {
      await Bun.sleep(0);
      Bun.gc(true);
      aliveCount = made.filter((reference) => reference.deref() !== undefined).length;
      return [0];
    },
    { outputNode: true },
  );
  const prompt: Record<string, unknown> = { n0: node("Make"), last: node("Last", [`n${length}`, 0]) };
  for (let id = 1; id <= length; id += 1) prompt[`n${id}`] = node("Make", [`n${id - 1}`, 0]);
  await execute(prompt, { Make: pipe(make), Last: last });
  expect(made).toHaveLength(length + 1);
  // Its own input, and whatever a conservative collector takes for a reference.
  expect(aliveCount).toBeGreaterThanOrEqual(1);
  expect(aliveCount).toBeLessThan(length / 4);
});
