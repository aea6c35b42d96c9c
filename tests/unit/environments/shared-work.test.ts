import { expect, test } from "bun:test";
import { SharedWork } from "../../../src/server/environments/shared-work.ts";

/** Work whose end the test decides. */
function scripted() {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const runs: { signal: AbortSignal; report: (report: number) => void }[] = [];
  const work = (signal: AbortSignal, report: (report: number) => void) => {
    runs.push({ signal, report });
    return promise;
  };
  return { work, runs, finish: resolve, fail: reject };
}

const soon = () => new Promise<void>((resolve) => setImmediate(resolve));

test("callers of one key share one run and its outcome", async () => {
  const { work, runs, finish } = scripted();
  const shared = new SharedWork<string, number>();
  const waiting = [shared.join("a", work), shared.join("a", work)];
  await soon();
  finish("made");
  expect(await Promise.all(waiting)).toEqual(["made", "made"]);
  expect(runs).toHaveLength(1);
});

test("keys are apart", async () => {
  const shared = new SharedWork<string, number>();
  expect(await Promise.all([shared.join("a", async () => "of a"), shared.join("b", async () => "of b")])).toEqual([
    "of a",
    "of b",
  ]);
});

test("a caller that gives up leaves the others their work", async () => {
  const { work, runs, finish } = scripted();
  const shared = new SharedWork<string, number>();
  const impatient = new AbortController();
  const left = shared.join("a", work, { signal: impatient.signal });
  const stayed = shared.join("a", work);
  await soon();
  impatient.abort();
  await expect(left).rejects.toMatchObject({ code: "cancelled" });
  await soon();
  expect(runs[0]?.signal.aborted).toBe(false);
  finish("made");
  expect(await stayed).toBe("made");
});

test("the run is aborted when the last caller gives up, and the next caller waits for its end", async () => {
  const first = scripted();
  const second = scripted();
  const shared = new SharedWork<string, number>();
  const impatient = new AbortController();
  const left = shared.join("a", first.work, { signal: impatient.signal });
  await soon();
  impatient.abort();
  await expect(left).rejects.toMatchObject({ code: "cancelled" });
  await soon();
  expect(first.runs[0]?.signal.aborted).toBe(true);
  const next = shared.join("a", second.work);
  await soon();
  expect(second.runs).toHaveLength(0);
  first.fail(new Error("cleaned up"));
  await soon();
  expect(second.runs).toHaveLength(1);
  second.finish("made anew");
  expect(await next).toBe("made anew");
});

test("a failure reaches every caller and is not kept", async () => {
  const shared = new SharedWork<string, number>();
  const failing = async () => {
    throw new Error("no");
  };
  const outcomes = await Promise.allSettled([shared.join("a", failing), shared.join("a", failing)]);
  expect(outcomes.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  expect(await shared.join("a", async () => "yes")).toBe("yes");
});

test("a late caller hears the last report, and all hear the next, even through one function", async () => {
  const { work, runs, finish } = scripted();
  const shared = new SharedWork<string, number>();
  const heard: number[] = [];
  const onReport = (report: number) => void heard.push(report);
  const first = shared.join("a", work, { onReport });
  await soon();
  runs[0]?.report(1);
  const late = shared.join("a", work, { onReport });
  await soon();
  runs[0]?.report(2);
  expect(heard).toEqual([1, 1, 2, 2]);
  finish("made");
  await Promise.all([first, late]);
});

test("whoever comes with an aborted signal starts nothing", async () => {
  const { work, runs } = scripted();
  const shared = new SharedWork<string, number>();
  await expect(shared.join("a", work, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "cancelled" });
  await soon();
  expect(runs).toHaveLength(0);
});

test("idleness comes when the last run has cleaned up, also one that all have left", async () => {
  const { work, fail } = scripted();
  const shared = new SharedWork<string, number>();
  const controller = new AbortController();
  const left = shared.join("a", work, { signal: controller.signal }).catch(() => undefined);
  await soon();
  controller.abort();
  await left;
  let idle = false;
  const idling = shared.idle().then(() => {
    idle = true;
  });
  await soon();
  expect(idle).toBe(false);
  fail(new Error("cleaned up"));
  await idling;
});
