import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Connection } from "../../../src/transport/connection.ts";
import { AirlockError } from "../../../src/transport/errors.ts";
import { buildFrame, type Frame, FrameKind } from "../../../src/transport/frame.ts";
import { defaultLimits, type Limits } from "../../../src/transport/limits.ts";
import { WriteBatch } from "../../../src/transport/write-batch.ts";
import { bytesOf, hexOf, joined } from "../../support/bytes.ts";
import { FakeSocket } from "../../support/fake-socket.ts";
import { Count } from "../../support/receipts.ts";

const frameOf = (call: number, bodyBytes = 10): Frame =>
  buildFrame({ kind: FrameKind.call, peer: 1, call, body: new Uint8Array(bodyBytes).fill(call) });

function connected(limits: Partial<Limits> = {}) {
  const fake = new FakeSocket();
  const frames: string[] = [];
  const closes: (AirlockError | undefined)[] = [];
  const broken: AirlockError[] = [];
  const connection = new Connection(
    fake.socket,
    { ...defaultLimits, ...limits },
    {
      onFrame: (frame) => frames.push(hexOf(frame)),
      onBroken: (cause) => broken.push(cause),
      onClose: (cause) => closes.push(cause),
    },
  );
  return { fake, connection, frames, closes, broken };
}

describe("sending", () => {
  test("keeps the order of frames, however little the socket takes at a time", () => {
    const steps = fc.array(
      fc.oneof(
        fc.record({ send: fc.integer({ min: 0, max: 300 }) }),
        fc.record({ drain: fc.integer({ min: 0, max: 200 }) }),
      ),
    );
    fc.assert(
      fc.property(steps, (history) => {
        const { fake, connection } = connected();
        const sent: Frame[] = [];
        fake.room = 0;
        for (const step of history) {
          if ("send" in step) {
            const frame = frameOf(sent.length % 256, step.send);
            sent.push(frame.slice());
            connection.send(frame);
            // The sender may reuse its buffer as soon as it is back.
            frame.fill(0xee);
          } else {
            fake.room += step.drain;
            connection.handleDrain();
          }
          expect(connection.outboxBytes + fake.bytes.byteLength).toBe(joined(sent).byteLength);
        }
        fake.room = Number.POSITIVE_INFINITY;
        connection.handleDrain();
        expect(hexOf(fake.bytes)).toBe(hexOf(joined(sent)));
        expect(connection.outboxBytes).toBe(0);
      }),
    );
  });

  test("to a peer that does not read closes its connection, once the queue is full", () => {
    const { fake, connection, closes } = connected({ outboxBytesMax: 100 });
    fake.room = 5;
    for (let call = 1; call <= 3; call++) connection.send(frameOf(call));
    expect(closes).toEqual([]);
    expect(connection.outboxBytes).toBe(3 * 26 - 5);
    connection.send(frameOf(4));
    connection.send(frameOf(5));
    expect(closes.map((cause) => cause?.code)).toEqual(["limit_exceeded"]);
    expect(fake.terminated).toBe(1);
    expect(connection.outboxBytes).toBe(0);
  });

  test("into a socket that is closed already queues, until the close is told", () => {
    const { fake, connection, closes } = connected();
    fake.end();
    connection.send(frameOf(1));
    connection.handleClose();
    connection.send(frameOf(2));
    expect(closes).toEqual([undefined]);
  });
});

describe("a batch", () => {
  /** Two connections of one batch; what the first receives, the second is sent. */
  function joinedByBatch(limits: Partial<Limits> = {}) {
    const batch = new WriteBatch();
    const [fakes, closes] = [[new FakeSocket(), new FakeSocket()] as const, [] as (AirlockError | undefined)[]];
    const quiet = { onBroken: () => undefined, onClose: () => undefined };
    const all = { ...defaultLimits, ...limits };
    const to = new Connection(
      fakes[1].socket,
      all,
      { ...quiet, onFrame: () => undefined, onClose: (cause) => closes.push(cause) },
      batch,
    );
    const receipt = new Count();
    const events = { ...quiet, onFrame: (frame: Frame) => to.send(frame, receipt) };
    const from = new Connection(fakes[0].socket, all, events, batch);
    return { from, to, closes, fake: fakes[1], receipt };
  }

  test("writes what one chunk made it send at once, and nothing later than that", () => {
    const { from, fake, receipt } = joinedByBatch();
    const chunk = joined([1, 2, 3].map((call) => frameOf(call)));
    from.handleData(chunk);
    expect(fake.taken.map(hexOf)).toEqual([hexOf(chunk)]);
    expect(receipt.bytes).toBe(chunk.byteLength);
  });

  test("keeps the order of frames of all sizes, however little the socket takes", () => {
    const sizes = [10, 9000, 10, 70_000, 10, 10];
    for (const room of [0, 5, 5000, 10_000, 60_000, Number.POSITIVE_INFINITY]) {
      const { from, fake, to, receipt } = joinedByBatch();
      const chunk = joined(sizes.map((size, call) => frameOf(call + 1, size)));
      fake.room = room;
      from.handleData(chunk);
      expect([receipt.bytes, to.outboxBytes]).toEqual([
        fake.bytes.byteLength,
        chunk.byteLength - fake.bytes.byteLength,
      ]);
      fake.room = Number.POSITIVE_INFINITY;
      to.handleDrain();
      expect(hexOf(fake.bytes)).toBe(hexOf(chunk));
      expect(receipt.bytes).toBe(chunk.byteLength);
    }
  });

  test("gathers no more than is worth it of a chunk of tiny frames", () => {
    const { from, fake } = joinedByBatch();
    from.handleData(joined(Array.from({ length: 20_000 }, (_, call) => frameOf(call % 256, 0))));
    expect(fake.bytes.byteLength).toBe(20_000 * 16);
    for (const written of fake.taken) expect(written.byteLength).toBeLessThanOrEqual(65_536 + 16);
  });

  test("leaves the limit of what is queued in force", () => {
    const { from, fake, closes, receipt } = joinedByBatch({ outboxBytesMax: 100 });
    fake.room = 0;
    const frames = [1, 2, 3, 4, 5].map((call) => frameOf(call));
    for (const each of frames) from.handleData(each);
    expect(closes.map((cause) => cause?.code)).toEqual(["limit_exceeded"]);
    expect(receipt.bytes).toBe(joined(frames).byteLength);
  });
});

describe("a receipt", () => {
  test("is had of what was written, queued, and sent to who is gone", () => {
    const { fake, connection } = connected();
    const receipt = new Count();
    connection.send(frameOf(1), receipt);
    expect(receipt.bytes).toBe(26);
    fake.room = 6;
    connection.send(frameOf(2), receipt);
    expect(receipt.bytes).toBe(32);
    fake.room = 10;
    connection.handleDrain();
    expect(receipt.bytes).toBe(42);
    connection.handleClose();
    expect(receipt.bytes).toBe(52);
    connection.send(frameOf(3), receipt);
    expect(receipt.bytes).toBe(78);
  });
});

describe("ending", () => {
  test("flushes what is queued, and takes nothing more", () => {
    const { fake, connection, closes } = connected();
    fake.room = 3;
    connection.send(frameOf(1));
    const why = new AirlockError("server_stopping", "bye");
    connection.end(why);
    connection.send(frameOf(2));
    expect(fake.ended).toBe(0);
    fake.room = 5;
    connection.handleDrain();
    expect(fake.ended).toBe(0);
    fake.room = 1000;
    connection.handleDrain();
    expect(fake.ended).toBe(1);
    expect(hexOf(fake.bytes)).toBe(hexOf(frameOf(1)));
    connection.handleClose();
    expect(closes).toEqual([why]);
  });

  test("with nothing queued ends at once, and only once", () => {
    const { fake, connection } = connected();
    connection.end();
    connection.end(new AirlockError("cancelled", "too late"));
    expect(fake.ended).toBe(1);
  });

  test("looks at nothing that arrives afterwards", () => {
    const { connection, frames, broken } = connected();
    connection.end();
    connection.handleData(frameOf(1));
    connection.handleData(new Uint8Array(100).fill(0xff));
    expect([frames, broken]).toEqual([[], []]);
  });

  test("in the midst of a chunk drops the rest of it, sound or broken", () => {
    const fake = new FakeSocket();
    const seen: string[] = [];
    const connection: Connection = new Connection(fake.socket, defaultLimits, {
      onFrame: (frame) => {
        seen.push(hexOf(frame));
        connection.end();
      },
      onBroken: () => seen.push("broken"),
      onClose: () => undefined,
    });
    connection.handleData(joined([frameOf(1), frameOf(2), new Uint8Array(100).fill(0xff)]));
    expect(seen).toEqual([hexOf(frameOf(1))]);
  });

  test("by abort loses what is queued", () => {
    const { fake, connection, closes } = connected();
    fake.room = 0;
    connection.send(frameOf(1));
    const why = new AirlockError("cancelled", "now");
    connection.abort(why);
    fake.room = 1000;
    connection.handleDrain();
    expect(fake.bytes.byteLength).toBe(0);
    expect([fake.terminated, fake.ended]).toEqual([1, 0]);
    expect(closes).toEqual([why]);
  });
});

describe("the close is told once", () => {
  const first = new AirlockError("server_stopping", "first");
  const second = new AirlockError("cancelled", "second");

  test.each<[string, (connection: Connection) => unknown, AirlockError | undefined]>([
    ["closed by the peer", (connection) => connection.handleClose(), undefined],
    ["aborted", (connection) => connection.abort(second), second],
    ["aborted without a cause", (connection) => connection.abort(), undefined],
    ["ended", (connection) => connection.end(first), first],
    [
      "ended, then aborted with another cause",
      (connection) => [connection.end(first), connection.abort(second)],
      second,
    ],
    ["ended, then aborted without a cause", (connection) => [connection.end(first), connection.abort()], first],
    ["aborted, then ended", (connection) => [connection.abort(second), connection.end(first)], second],
  ])("with the cause, where the connection was %s", (_, close, cause) => {
    const { connection, closes } = connected();
    close(connection);
    connection.handleClose();
    connection.handleClose(new Error("again"));
    connection.abort(new AirlockError("internal_error", "again"));
    expect(closes).toEqual([cause]);
  });

  test("as a disconnect where the socket failed", () => {
    const { connection, closes } = connected();
    const failure = new Error("ECONNRESET");
    connection.handleClose(failure);
    expect(closes.map((cause) => [cause?.code, cause?.message, cause?.cause])).toEqual([
      ["disconnected", "ECONNRESET", failure],
    ]);
  });
});

describe("receiving", () => {
  test("passes on frames, however they come", () => {
    const { connection, frames } = connected();
    const stream = joined([frameOf(1), frameOf(2, 5000), frameOf(3)]);
    for (let at = 0; at < stream.byteLength; at += 7) connection.handleData(stream.slice(at, at + 7));
    expect(frames).toEqual([frameOf(1), frameOf(2, 5000), frameOf(3)].map(hexOf));
  });

  test("gives frames of a Buffer whose slice is a copy", () => {
    const fake = new FakeSocket();
    const kept: Uint8Array[] = [];
    const connection = new Connection(fake.socket, defaultLimits, {
      onFrame: (frame) => kept.push(frame.slice()),
      onBroken: () => undefined,
      onClose: () => undefined,
    });
    const chunk = Buffer.from(frameOf(1));
    connection.handleData(chunk);
    chunk.fill(0);
    expect(kept.map(hexOf)).toEqual([hexOf(frameOf(1))]);
  });

  test("tells of a stream that is broken, and of the frames before", () => {
    const { connection, frames, broken } = connected();
    connection.handleData(joined([frameOf(1), bytesOf("00000000990000000000000000000000")]));
    expect(frames).toHaveLength(1);
    expect(broken.map((cause) => cause.code)).toEqual(["protocol_error"]);
  });

  test("breaks once at most, whatever comes, and throws nothing", () => {
    const chunks = fc.array(fc.uint8Array({ maxLength: 60 }), { maxLength: 10 });
    fc.assert(
      fc.property(chunks, (arriving) => {
        const [fake, broken, batch] = [new FakeSocket(), [] as AirlockError[], new WriteBatch()];
        const connection: Connection = new Connection(
          fake.socket,
          { ...defaultLimits, frameBytesMax: 64 },
          {
            onFrame: (frame) => connection.send(frame),
            onBroken: (cause) => {
              broken.push(cause);
              connection.end(cause);
            },
            onClose: () => undefined,
          },
          batch,
        );
        for (const chunk of arriving) connection.handleData(chunk);
        expect(broken.length).toBeLessThanOrEqual(1);
        for (const { code } of broken) expect(code).toBeOneOf(["protocol_error", "limit_exceeded"]);
        expect([batch.isOpen, connection.outboxBytes]).toEqual([false, 0]);
      }),
    );
  });

  test("takes a listener's failure for a broken stream, and throws nothing into the loop", () => {
    const broken: AirlockError[] = [];
    const connection = new Connection(new FakeSocket().socket, defaultLimits, {
      onFrame: () => {
        throw new TypeError("a fault of ours");
      },
      onBroken: (cause) => broken.push(cause),
      onClose: () => undefined,
    });
    connection.handleData(frameOf(1));
    expect(broken.map((cause) => cause.code)).toEqual(["internal_error"]);
  });
});
