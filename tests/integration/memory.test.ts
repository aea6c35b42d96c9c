/** A host's large arrays through a real server: a worker finds them in memory that it was passed, and they come home. */
import { describe, expect, test } from "bun:test";
import { closeSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { bodyWithTable } from "../../src/transport/array-body.ts";
import { pageBytes, segmentKinds } from "../../src/transport/segment-file.ts";
import { NdArray } from "../../src/transport/values.ts";
import { collected, retried } from "../support/until.ts";
import { Puppets } from "./raw-peers.ts";
import { sharing } from "./raw-sharers.ts";
import { packs, until, useWorld } from "./support.ts";

const world = useWorld();
const MiB = 1024 * 1024;

function bytesAt(path: string, offset: number, count: number): Uint8Array {
  const descriptor = openSync(path, "r");
  const buffer = new Uint8Array(count);
  readSync(descriptor, buffer, 0, count, offset);
  closeSync(descriptor);
  return buffer;
}

describe.each(segmentKinds)("by %s", (segments) => {
  test(
    "a large array reaches the worker in memory, comes home in it, and the memory is free again",
    async () => {
      using puppets = new Puppets(world);
      const server = await world.serve({ workerVariables: puppets.variables, segments });
      const airlock = await world.connect(server);
      const pack = await airlock.open(join(packs, "puppet"));
      const data = new Uint8Array(3 * MiB).map((_, index) => index * 11);
      // Not in a variable of this function, which would hold the array that it answers.
      const answers = [pack.call("Any", { image: new NdArray("tensor", "uint8", [3, MiB], data) })];
      const worker = await puppets.next(sharing);
      const heard = await worker.hear({ kind: "call" });
      expect(heard.body).toEqual([
        [["tensor", "uint8", [3, MiB], "C", [0, 0, null]]],
        ["run", ["Any"], { image: Uint8Array.of(0) }],
      ]);
      const [[segment = 0, page = 0, pages = 0, generation = 0]] = heard.attachments as [number[]];
      const { path, number } = (await worker.lane?.next()) ?? expect.unreachable();
      expect([number, pages]).toEqual([segment, (3 * MiB) / pageBytes]);
      expect(Buffer.compare(bytesAt(path, page * pageBytes, data.byteLength), data)).toBe(0);
      const generationNow = () => new DataView(bytesAt(path, 4 * page, 4).buffer).getUint32(0, true);
      expect(generationNow()).toBe(generation);
      const attachments = [{ segment, page, pages, generation }];
      const place = { attachment: 0, offset: MiB, strides: undefined };
      const entry = { kind: "tensor", dtype: "uint8", shape: [MiB], order: "C", data: place } as const;
      const body = bodyWithTable([entry], [Uint8Array.of(0xd4, 5, 0)]);
      worker.send("result", worker.host, heard.call, undefined, { body, attachments, hasArrays: true });
      await (async () => {
        const row = (await answers.pop()) as NdArray;
        expect([row.shape, row.data[0], row.data[7]]).toEqual([[MiB], data[MiB], data[MiB + 7]]);
        expect(generationNow()).toBe(generation);
      })();
      worker.send("return", worker.host, 0, undefined, { attachments });
      await collected(() => generationNow() === 0, "the block is free");
      await airlock.close();
    },
    retried,
  );

  test("a shared array is in memory once, and what a worker held is free when it has ended", async () => {
    using puppets = new Puppets(world);
    const server = await world.serve({ workerVariables: puppets.variables, segments });
    const airlock = await world.connect(server);
    const pack = await airlock.open(join(packs, "puppet"));
    const model = await airlock.share(new NdArray("tensor", "uint8", [2 * MiB], new Uint8Array(2 * MiB).fill(6)));
    expect(model.data[2 * MiB - 1]).toBe(6);
    // The worker gets both as it starts.
    const answers = [pack.call("Any", { model }), pack.call("Any", { model, data: new Uint8Array(2 * MiB) })];
    for (const answer of answers) answer.catch(() => undefined);
    const worker = await puppets.next(sharing);
    const heard = [await worker.hear({ kind: "call" }), await worker.hear({ kind: "call" })];
    const [[[, shared = 0] = []], [again, [, copied = 0] = []]] = heard.map(({ attachments }) => attachments) as [
      number[][],
      number[][],
    ];
    expect(again?.[1]).toBe(shared);
    const { path } = (await worker.lane?.next()) ?? expect.unreachable();
    const file = openSync(path, "r");
    const generationAt = (page: number): number => bytesAt(`/proc/self/fd/${file}`, 4 * page, 1)[0] ?? 0;
    expect([generationAt(shared) > 0, generationAt(copied) > 0]).toEqual([true, true]);
    worker.hangUp();
    await Promise.allSettled(answers);
    await until(() => generationAt(copied) === 0, "what the worker alone held is free");
    expect([generationAt(shared) > 0, model.data[5]]).toEqual([true, 6]);
    closeSync(file);
    await airlock.close();
  });
});
