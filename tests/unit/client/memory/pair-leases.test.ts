/** Two processes' leases of each other, joined without sockets; the server's part is a model, the memory is real. */
import { afterEach, describe, expect, test } from "bun:test";
import type { HeldArrays } from "../../../../src/client/memory/held-arrays.ts";
import { Memory } from "../../../../src/client/memory/memory.ts";
import { PairLeases } from "../../../../src/client/memory/pair-leases.ts";
import type { Placed } from "../../../../src/client/memory/placed.ts";
import { bodyWithTable } from "../../../../src/transport/array-body.ts";
import { ManualClock } from "../../../../src/transport/clock.ts";
import { decode, encodeParts } from "../../../../src/transport/codec.ts";
import type { Attachment } from "../../../../src/transport/frame.ts";
import { loadLibc } from "../../../../src/transport/libc.ts";
import { NdArray } from "../../../../src/transport/values.ts";
import { ModelSegments, type Side, TableLane } from "../../../conformance/model-segments.ts";
import { joined } from "../../../support/bytes.ts";
import { rejectionOf, thrownBy } from "../../../support/errors.ts";

const open: Disposable[] = [];
afterEach(() => {
  for (const each of open.splice(0)) each[Symbol.dispose]();
});

interface Message {
  readonly body: Uint8Array;
  readonly blocks: readonly Attachment[];
}

/** A host and a worker; RETURNs and RECLAIMs are recorded until a test delivers them. */
function joinedMemories({ attachmentsMax = 4096, room = Number.POSITIVE_INFINITY, collectMs = 0 } = {}) {
  const clock = new ManualClock();
  const lanes = { host: new TableLane(), worker: new TableLane() };
  const segments = new ModelSegments((to, number, descriptor) => lanes[to].pass(number, descriptor));
  segments.workerRuns = true;
  let collections = 0;
  const memoryOf = (side: Side): Memory =>
    new Memory({
      libc: loadLibc(),
      lane: lanes[side],
      clock,
      attachmentsMax,
      callServer: async (method, parameters) => segments.answer(side, method, parameters)?.value,
      room: () => ({ bytes: room, of: "the test" }),
      collectGarbage: () => {
        collections += 1;
        clock.advance(collectMs);
      },
    });
  const memories = { host: memoryOf("host"), worker: memoryOf("worker") };
  const sent: { readonly from: Side; readonly returned?: readonly Attachment[] }[] = [];
  const leasesOf = (side: Side, name: string) =>
    new PairLeases({
      memory: memories[side],
      peer: side === "host" ? 5 : 7,
      name,
      audience: side === "host" ? 0 : undefined,
      sendReturn: (returned) => sent.push({ from: side, returned }),
      sendReclaim: () => sent.push({ from: side }),
    });
  open.push({
    [Symbol.dispose]() {
      for (const memory of Object.values(memories)) memory.close();
      segments[Symbol.dispose]();
    },
  });
  return {
    ...{ clock, segments, memories, sent, leasesOf },
    host: leasesOf("host", "pack blur"),
    worker: leasesOf("worker", "the host"),
    get collections() {
      return collections;
    },
  };
}

const array = (bytes: number, fill = 1) => new NdArray("tensor", "uint8", [bytes], new Uint8Array(bytes).fill(fill));

/** Writes a value with all its arrays placed. */
async function written(leases: PairLeases, value: unknown): Promise<Message & { placed: Placed }> {
  const plan = leases.plan() ?? expect.unreachable();
  const parts = encodeParts(value, undefined, plan);
  const placed = await plan.placeSoon();
  plan.close();
  placed.sent();
  return { body: joined(bodyWithTable(placed.entries, parts)), blocks: placed.attachments, placed };
}

/** Reads a message, and keeps what it holds only as long as its value is looked at. */
function read<T>(leases: PairLeases, { body, blocks }: Message, look: (value: unknown, arrays: HeldArrays) => T): T {
  const { value, arrays } = leases.receive(body, blocks);
  try {
    return look(decode(value, undefined, arrays), arrays);
  } finally {
    arrays.settle();
  }
}

const megabyte = 1024 * 1024;

describe("receipts", () => {
  test("of what nobody looks at go back, with the next frame or after 20 ms", async () => {
    const { clock, host, worker, sent, segments } = joinedMemories();
    const first = await written(host, array(megabyte));
    worker.discard(first.blocks);
    expect(sent).toEqual([]);
    worker.flush();
    expect(sent.splice(0)).toEqual([{ from: "worker", returned: first.blocks }]);
    expect(host.returned(first.blocks, false)).toBe(true);
    expect(segments.blocks("host")).toBe(0);
    const second = await written(host, array(megabyte));
    worker.discard(second.blocks);
    clock.advance(19);
    expect(sent).toEqual([]);
    clock.advance(1);
    expect(sent).toEqual([{ from: "worker", returned: second.blocks }]);
  });

  test("go back in as many frames as they need", async () => {
    const { host, worker, sent } = joinedMemories({ attachmentsMax: 2 });
    for (let message = 0; message < 5; message++) worker.discard((await written(host, array(megabyte))).blocks);
    worker.flush();
    expect(sent.map(({ returned }) => returned?.length)).toEqual([2, 2, 1]);
  });

  test("beyond what was given are a fault, unless the server returns them or nobody here knows the segment", async () => {
    const { host, worker } = joinedMemories();
    const { blocks } = await written(host, array(megabyte));
    worker.discard(blocks);
    expect(host.returned(blocks, false)).toBe(true);
    expect(host.returned(blocks, false)).toBe(false);
    expect(host.returned(blocks, true)).toBe(true);
    expect(host.returned([{ segment: 77, page: 1, pages: 1, generation: 1 }], false)).toBe(true);
  });

  test("of a message that did not leave are taken back", async () => {
    const { host, segments } = joinedMemories();
    const plan = host.plan() ?? expect.unreachable();
    plan.add(array(megabyte));
    const placed = await plan.placeSoon();
    plan.close();
    expect(segments.blocks("host")).toBe(1);
    placed.undo();
    placed.undo();
    expect(segments.blocks("host")).toBe(0);
  });

  test("of a dead process that wait for its heir are the heir's, and go where the message was the dead one's after all", async () => {
    const { host, leasesOf, segments } = joinedMemories();
    const [delivered, waiting, other] = [
      await written(host, array(megabyte)),
      await written(host, array(megabyte)),
      await written(host, array(megabyte)),
    ];
    const heir = leasesOf("host", "pack blur");
    host.end([waiting.placed, other.placed], heir);
    expect(segments.blocks("host")).toBe(2);
    expect(heir.returned(delivered.blocks, true)).toBe(true);
    other.placed.died();
    expect(segments.blocks("host")).toBe(1);
    expect(heir.returned(waiting.blocks, false)).toBe(true);
    expect(segments.blocks("host")).toBe(0);
    expect(host.plan()).toBeUndefined();
  });

  test("are not owed to a process that is gone", async () => {
    const { clock, host, worker, sent } = joinedMemories();
    const { blocks } = await written(host, array(megabyte));
    worker.discard(blocks);
    worker.end();
    clock.advance(100);
    expect(sent).toEqual([]);
  });
});

describe("a message", () => {
  test("that names a block which its owner took back is refused, and names it", async () => {
    const { host, worker, segments } = joinedMemories();
    const message = await written(host, array(megabyte));
    host.returned(message.blocks, true);
    expect(segments.blocks("host")).toBe(0);
    expect(thrownBy(() => read(worker, message, (value) => value)).code).toBe("lease_gone");
    // And where another block begins at the same page by now.
    await written(host, array(megabyte, 2));
    expect(thrownBy(() => read(worker, message, (value) => value)).code).toBe("lease_gone");
  });

  test("that names a block outside of its segment, or in its header, is refused", async () => {
    const { host, worker } = joinedMemories();
    const message = await written(host, array(megabyte));
    for (const wrong of [{ page: 0 }, { page: 4095, pages: 256 }, { pages: 5000 }]) {
      const blocks = message.blocks.map((block) => ({ ...block, ...wrong }));
      expect(thrownBy(() => read(worker, { ...message, blocks }, (value) => value)).code).toBe("value_invalid");
    }
  });

  test("that names a segment which nobody passed is refused", () => {
    const { worker } = joinedMemories();
    const blocks = [{ segment: 9, page: 1, pages: 1, generation: 1 }];
    expect(thrownBy(() => worker.discard(blocks)).code).toBe("protocol_error");
  });

  test("whose table makes no sense gives its blocks back", async () => {
    const { host, worker, sent } = joinedMemories();
    const { blocks } = await written(host, array(megabyte));
    expect(thrownBy(() => worker.receive(Uint8Array.of(0x92, 0xc0, 0xc0), blocks)).code).toBe("value_invalid");
    worker.flush();
    expect(sent).toEqual([{ from: "worker", returned: blocks }]);
  });

  test("maps blocks that lie together at once", async () => {
    const { host, worker } = joinedMemories();
    const message = await written(host, [array(70_000, 1), array(70_000, 2), array(70_000, 3)]);
    read(worker, message, (value) => {
      const arrays = value as NdArray[];
      expect(new Set(arrays.map(({ data }) => data.buffer)).size).toBe(1);
      expect(arrays.map(({ data }) => data.at(-1))).toEqual([1, 2, 3]);
    });
  });

  test.each([
    [new NdArray("tensor", "float32", [10], new Uint8Array(megabyte)), '1048576 bytes are no array of "float32"'],
    [new NdArray("tensor", "uint8", [1, megabyte], new Uint8Array(megabyte), [0, 0]), "in the order 0,0"],
    [new NdArray("ndarray", "float33", [megabyte], new Uint8Array(megabyte)), '"float33"'],
  ])("with an array that is none is refused where it is written", async (wrong, words) => {
    const { host, segments } = joinedMemories();
    const error = await rejectionOf(written(host, wrong));
    expect([error.code, error.message]).toEqual(["value_unsupported", expect.stringContaining(words)]);
    expect(segments.asked).toEqual([]);
  });

  test("that would name more blocks than a frame can is refused, and holds none", async () => {
    const { host, segments } = joinedMemories({ attachmentsMax: 2 });
    const error = await rejectionOf(
      written(
        host,
        [1, 2, 3].map((fill) => array(70_000, fill)),
      ),
    );
    expect([error.code, error.message]).toEqual(["limit_exceeded", "3 large arrays in one message are more than 2"]);
    expect(segments.blocks("host")).toBe(0);
  });

  test("that comes home names the sender's own block, and its receipt goes back at once", async () => {
    const { host, worker, sent, segments } = joinedMemories();
    const message = await written(host, array(megabyte, 4));
    const { value, arrays } = worker.receive(message.body, message.blocks);
    const back = await written(worker, decode(value, undefined, arrays));
    expect(back.blocks).toEqual(message.blocks);
    read(host, back, (home) => expect((home as NdArray).data[5]).toBe(4));
    host.flush();
    expect(sent.splice(0)).toEqual([{ from: "host", returned: message.blocks }]);
    expect(segments.ownedBytes("worker")).toBe(0);
  });
});

describe("a process that is asked for what it can spare", () => {
  test("looks for garbage at once, and in no more than a quarter of its time", () => {
    const made = joinedMemories({ collectMs: 100 });
    made.worker.reclaim();
    made.worker.reclaim();
    made.clock.advance(299);
    made.worker.reclaim();
    expect(made.collections).toBe(1);
    made.clock.advance(1);
    made.worker.reclaim();
    expect(made.collections).toBe(2);
  });
});

describe("a process without memory", () => {
  test("says so before it takes any, and whom it has asked", async () => {
    const { host, clock, segments } = joinedMemories({ room: 10 * megabyte });
    const failure = rejectionOf(written(host, array(megabyte)));
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
    clock.advance(1_000);
    const error = await failure;
    expect(error.code).toBe("limit_exceeded");
    expect(error.message).toBe(
      "16 MiB of memory for arrays are needed, and the test has 10 MiB left; of 0 MiB that this process has for arrays, nobody else holds any",
    );
    expect(segments.asked).toEqual([]);
  });

  /** A host that may own 100 MiB, of which the worker holds twice 40. */
  async function short() {
    const made = joinedMemories();
    made.segments.bytesMax = 100 * megabyte;
    const held: Attachment[] = [];
    for (let count = 0; count < 2; count++) held.push(...(await written(made.host, array(40 * megabyte))).blocks);
    return { ...made, held };
  }

  const turns = async (): Promise<void> => {
    for (let turn = 0; turn < 30; turn++) await Promise.resolve();
  };

  test("goes on once enough has come back, however many are needed for it", async () => {
    const { host, held, sent, segments } = await short();
    const writing = written(host, array(60 * megabyte));
    await turns();
    expect(sent).toEqual([{ from: "host" }]);
    for (const block of held) {
      host.returned([block], false);
      await turns();
    }
    expect((await writing).blocks).toHaveLength(1);
    expect(segments.numbers).toEqual([3]);
  });

  test("has what came back as it began to wait, and what others let go of meanwhile", async () => {
    const { host, held, segments } = await short();
    const writing = written(host, array(60 * megabyte));
    host.returned(held, false);
    await turns();
    expect((await writing).blocks).toHaveLength(1);
    const more = written(host, array(60 * megabyte));
    await turns();
    segments.bytesMax = 200 * megabyte;
    const other = await written(host, array(megabyte));
    host.returned(other.blocks, false);
    await turns();
    expect((await more).blocks).toHaveLength(1);
  });

  test("asks again, and fails a second later with what is held then", async () => {
    const { host, held, clock, sent } = await short();
    const failure = rejectionOf(written(host, array(60 * megabyte)));
    await turns();
    host.returned(held.slice(0, 1), false);
    for (let step = 0; step < 5; step++) {
      await turns();
      clock.advance(200);
    }
    const error = await failure;
    expect(error.code).toBe("limit_exceeded");
    expect(error.message).toContain("of 41 MiB that this process has for arrays, pack blur holds 40 MiB");
    expect(sent.length).toBeGreaterThanOrEqual(5);
  });
});
