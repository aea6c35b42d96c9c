import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AirlockError } from "../../../src/transport/errors.ts";
import {
  buildFrame,
  type Frame,
  FrameKind,
  frameAttachmentCount,
  frameAttachments,
  frameBody,
  frameCall,
  frameDeadlineMs,
  frameHasArrays,
  frameHasReferences,
  frameKind,
  frameLength,
  frameParent,
  framePeer,
  headerBytes,
  setFrameCall,
  setFrameDeadlineMs,
  setFrameKind,
  setFrameParent,
  setFramePeer,
} from "../../../src/transport/frame.ts";
import { FrameAssembler } from "../../../src/transport/frame-assembler.ts";
import { defaultLimits, type Limits } from "../../../src/transport/limits.ts";
import { hexOf, joined } from "../../support/bytes.ts";
import { thrownBy } from "../../support/errors.ts";

const u32 = fc.oneof(fc.nat({ max: 0xffff_ffff }), fc.constantFrom(0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff));
const kinds = Object.values(FrameKind);
const fields = fc.record({
  kind: fc.constantFrom(...kinds),
  peer: u32,
  call: u32,
  deadlineMs: fc.option(u32, { nil: undefined }),
  parent: fc.option(u32, { nil: undefined }),
  hasReferences: fc.boolean(),
  hasArrays: fc.boolean(),
  attachments: fc.array(
    fc.record({
      segment: u32.filter((each) => each > 0),
      page: u32,
      pages: u32.filter((each) => each > 0),
      generation: u32,
    }),
    { maxLength: 3 },
  ),
  body: fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 4 }),
});
const referring: readonly number[] = [
  FrameKind.call,
  FrameKind.result,
  FrameKind.error,
  FrameKind.progress,
  FrameKind.event,
];
const attaching: readonly number[] = [...referring.filter((kind) => kind !== FrameKind.error), FrameKind.return];
const bodiless: readonly number[] = [FrameKind.return, FrameKind.reclaim];
/** Only a call may have a deadline and a parent, and not every kind refers to something, or has a body. */
const lawful = fields.map((frame) => ({
  ...frame,
  ...(frame.kind !== FrameKind.call && { deadlineMs: undefined, parent: undefined }),
  hasReferences: frame.hasReferences && referring.includes(frame.kind),
  hasArrays: frame.hasArrays && referring.includes(frame.kind),
  attachments: attaching.includes(frame.kind) ? frame.attachments : [],
  body: bodiless.includes(frame.kind) ? [] : frame.body,
}));

/** What an assembler makes of `chunks`: copies of its frames, and the most bytes that it held back. */
function assemble(chunks: readonly Uint8Array[], limits: Limits = defaultLimits) {
  const assembler = new FrameAssembler(limits);
  const frames: Uint8Array[] = [];
  for (const chunk of chunks) assembler.push(chunk, (frame) => frames.push(frame.slice()));
  return { assembler, frames };
}

/** Cuts `bytes` into pieces of the lengths that `lengths` repeats. */
function cut(bytes: Uint8Array, lengths: readonly number[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0, turn = 0; at < bytes.byteLength; turn++) {
    const length = lengths[turn % lengths.length] ?? 1;
    pieces.push(bytes.slice(at, at + length));
    at += length;
  }
  return pieces;
}

/** A header by hand, for what {@link buildFrame} would not build. */
function header(parts: { length?: number; kind?: number; flags?: number; attachments?: number }): Frame {
  const view = new DataView(new ArrayBuffer(headerBytes));
  view.setUint32(0, parts.length ?? 0, true);
  view.setUint8(4, parts.kind ?? FrameKind.call);
  view.setUint8(5, parts.flags ?? 0);
  view.setUint16(6, parts.attachments ?? 0, true);
  return new Uint8Array(view.buffer);
}

describe("a frame", () => {
  test("gives back what it was built from", () => {
    fc.assert(
      fc.property(fields, (built) => {
        const { kind, peer, call, deadlineMs, parent, hasReferences, hasArrays, attachments, body } = built;
        const frame = buildFrame(built);
        expect(frameKind(frame)).toBe(kind);
        expect(framePeer(frame)).toBe(peer);
        expect(frameCall(frame)).toBe(call);
        expect(frameDeadlineMs(frame)).toBe(deadlineMs);
        expect(frameParent(frame)).toBe(parent);
        expect(frameHasReferences(frame)).toBe(hasReferences);
        expect(frameHasArrays(frame)).toBe(hasArrays);
        expect(frameAttachmentCount(frame)).toBe(attachments.length);
        expect(frameAttachments(frame)).toEqual(attachments);
        expect(frameLength(frame)).toBe(frame.byteLength - headerBytes);
        expect(hexOf(frameBody(frame))).toBe(hexOf(joined(body)));
      }),
    );
  });

  test("is redirected in place, and nothing else of it changes", () => {
    fc.assert(
      fc.property(fields, u32, u32, (built, peer, call) => {
        const frame = buildFrame(built);
        setFramePeer(frame, peer);
        setFrameCall(frame, call);
        setFrameKind(frame, FrameKind.progress);
        if (built.parent !== undefined) setFrameParent(frame, call);
        const parent = built.parent === undefined ? undefined : call;
        expect(hexOf(frame)).toBe(hexOf(buildFrame({ ...built, kind: FrameKind.progress, peer, call, parent })));
      }),
    );
  });

  test("takes one body, several or none", () => {
    const whole = Uint8Array.of(1, 2, 3);
    const parts = [Uint8Array.of(1), new Uint8Array(0), Uint8Array.of(2, 3)];
    const call = { kind: FrameKind.call, peer: 1, call: 2 };
    expect(hexOf(buildFrame({ ...call, body: parts }))).toBe(hexOf(buildFrame({ ...call, body: whole })));
    expect(buildFrame(call).byteLength).toBe(headerBytes);
  });

  test.each([
    [0, 0],
    [0.1, 1],
    [1500, 1500],
    [-5, 0],
    [0xffff_ffff, 0xffff_ffff],
    [1e12, 0xffff_ffff],
    [Number.POSITIVE_INFINITY, 0xffff_ffff],
  ])("has a deadline of %p ms as %p", (asked, told) => {
    expect(frameDeadlineMs(buildFrame({ kind: FrameKind.call, peer: 0, call: 1, deadlineMs: asked }))).toBe(told);
  });
});

describe("attachments", () => {
  const call = { kind: FrameKind.call, peer: 1, call: 2 };
  const block = { segment: 1, page: 1, pages: 1, generation: 0 };

  test.each([
    ["without pages", { ...block, pages: 0 }, "attachment 1 is no block: 0 pages of segment 1"],
    ["of segment 0", { ...block, segment: 0 }, "attachment 1 is no block: 1 pages of segment 0"],
  ])("%s are refused when they are read", (_, bad, message) => {
    const frame = buildFrame({ ...call, attachments: [block, bad] });
    expect(thrownBy(() => frameAttachments(frame))).toMatchObject({ code: "protocol_error", message });
  });

  test("count towards what a frame may have", () => {
    expect(thrownBy(() => buildFrame({ ...call, attachments: [block, block] }, 31)).code).toBe("limit_exceeded");
    expect(buildFrame({ ...call, attachments: [block, block] }, 32).byteLength).toBe(headerBytes + 32);
  });
});

describe("an assembler", () => {
  test("makes the same frames of a stream, however it is chopped up", () => {
    const lengths = fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(fc.array(lawful, { maxLength: 12 }), lengths, (sent, sizes) => {
        const frames = sent.map((frame) => buildFrame(frame));
        const { assembler, frames: received } = assemble(cut(joined(frames), sizes));
        expect(received.map(hexOf)).toEqual(frames.map(hexOf));
        expect(assembler.pendingBytes).toBe(0);
      }),
    );
  });

  test("makes the same frames of a stream that is fed byte by byte", () => {
    const frames = kinds.map((kind, index) =>
      buildFrame({ kind, peer: index, call: index, body: new Uint8Array(bodiless.includes(kind) ? 0 : index) }),
    );
    expect(assemble(cut(joined(frames), [1])).frames.map(hexOf)).toEqual(frames.map(hexOf));
  });

  test("makes a frame that is larger than any chunk", () => {
    const body = new Uint8Array(1_000_003).map((_, index) => index);
    const frame = buildFrame({ kind: FrameKind.result, peer: 1, call: 1, body });
    const { frames } = assemble(cut(frame, [65_536]));
    expect(frames).toHaveLength(1);
    expect(Buffer.compare(frames[0] ?? new Uint8Array(), frame)).toBe(0);
  });

  test("holds back no more than what has arrived of an unfinished frame", () => {
    const frame = buildFrame({ kind: FrameKind.result, peer: 1, call: 1, body: new Uint8Array(100_000) });
    const assembler = new FrameAssembler(defaultLimits);
    let fed = 0;
    for (const chunk of cut(frame.subarray(0, -1), [7, 1000, 33_000])) {
      assembler.push(chunk, () => expect.unreachable());
      fed += chunk.byteLength;
      expect(assembler.pendingBytes).toBe(fed);
    }
  });

  test("passes on a frame that lies whole in its chunk without copying it", () => {
    const chunk = joined([buildFrame({ kind: FrameKind.hello, peer: 0, call: 0 }), Uint8Array.of(1)]);
    new FrameAssembler(defaultLimits).push(chunk, (frame) => expect(frame.buffer).toBe(chunk.buffer));
  });

  const refused = [
    ["a frame over the limit", header({ length: 1001 }), "limit_exceeded", "1001"],
    ["a frame of 4 GiB", header({ length: 0xffff_ffff }), "limit_exceeded", "4294967295"],
    ["kind 0", header({ kind: 0 }), "protocol_error", "kind 0"],
    ["a kind that is reserved", header({ kind: 14 }), "protocol_error", "kind 14"],
    ["a flag that is reserved", header({ flags: 16 }), "protocol_error", "0x10"],
    ["a deadline on a result", header({ kind: FrameKind.result, flags: 1, length: 4 }), "protocol_error", "deadline"],
    ["a parent on an answer", header({ kind: FrameKind.error, flags: 2, length: 4 }), "protocol_error", "parent"],
    ["references in a cancel", header({ kind: FrameKind.cancel, flags: 4 }), "protocol_error", "references"],
    ["a deadline and a parent in the room of one", header({ flags: 3, length: 7 }), "protocol_error", "7 bytes"],
    ["a deadline without room for it", header({ flags: 1, length: 3 }), "protocol_error", "3 bytes"],
    ["arrays in a cancel", header({ kind: FrameKind.cancel, flags: 8 }), "protocol_error", "arrays"],
    [
      "an attachment of an error",
      header({ kind: FrameKind.error, attachments: 1, length: 16 }),
      "protocol_error",
      "kind 5 has no attachments",
    ],
    ["an attachment without room for it", header({ attachments: 1, length: 15 }), "protocol_error", "15 bytes"],
    [
      "a return with a body",
      header({ kind: FrameKind.return, attachments: 1, length: 17 }),
      "protocol_error",
      "kind 12 has no body",
    ],
    ["attachments over the limit", header({ attachments: 4097 }), "limit_exceeded", "4097"],
  ] as const;

  test.each(refused)("refuses %s by its header, before it holds anything back", (_, bad, code, words) => {
    const limits = { ...defaultLimits, frameBytesMax: 1000 };
    for (const sizes of [[16], [1], [7], [4096]]) {
      const assembler = new FrameAssembler(limits);
      const stream = joined([bad, new Uint8Array(5000)]);
      const error = thrownBy(() => {
        for (const chunk of cut(stream, sizes)) assembler.push(chunk, () => expect.unreachable());
      });
      expect(error.code).toBe(code);
      expect(error.message).toContain(words);
      expect(assembler.pendingBytes).toBeLessThanOrEqual(headerBytes);
    }
  });

  test("passes on the frames before one that it refuses", () => {
    const good = buildFrame({ kind: FrameKind.cancel, peer: 1, call: 2 });
    const frames: string[] = [];
    const assembler = new FrameAssembler(defaultLimits);
    const stream = joined([good, good, header({ kind: 99 })]);
    thrownBy(() => assembler.push(stream, (frame) => frames.push(hexOf(frame))));
    expect(frames).toEqual([hexOf(good), hexOf(good)]);
  });

  test("passes on what came before a stream was changed, and refuses or reads what comes after", () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 1, maxLength: 4 });
    const change = fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 }));
    fc.assert(
      fc.property(fc.array(lawful, { minLength: 1, maxLength: 8 }), sizes, change, (sent, lengths, [at, bits]) => {
        const frames = sent.map((frame) => buildFrame(frame));
        const stream = joined(frames);
        const changed = at % stream.byteLength;
        stream[changed] = (stream[changed] ?? 0) ^ bits;
        const assembler = new FrameAssembler(defaultLimits);
        const received: string[] = [];
        try {
          for (const chunk of cut(stream, lengths)) assembler.push(chunk, (frame) => received.push(hexOf(frame)));
        } catch (error) {
          expect(["protocol_error", "limit_exceeded"]).toContain(thrownBy(() => raise(error)).code);
        }
        let end = 0;
        const before = frames.filter((frame) => {
          end += frame.byteLength;
          return end <= changed;
        });
        expect(received.slice(0, before.length)).toEqual(before.map(hexOf));
        expect(assemble([joined(frames)]).frames.map(hexOf)).toEqual(frames.map(hexOf));
      }),
    );
  });

  test("throws nothing but an AirlockError, whatever arrives", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 60 }), { maxLength: 10 }), (chunks) => {
        const assembler = new FrameAssembler({ ...defaultLimits, frameBytesMax: 64 });
        try {
          for (const chunk of chunks) assembler.push(chunk, () => undefined);
        } catch (error) {
          expect(["protocol_error", "limit_exceeded"]).toContain(thrownBy(() => raise(error)).code);
        }
        expect(assembler.pendingBytes).toBeLessThanOrEqual(64 + headerBytes);
      }),
    );
  });
});

function raise(error: unknown): never {
  throw error;
}

describe("a sender", () => {
  test("is refused a frame that its receiver would not take, before it is built", () => {
    const parts = [new Uint8Array(60), new Uint8Array(40)];
    const fields = { kind: FrameKind.call, peer: 1, call: 1, body: parts };
    expect(frameLength(buildFrame(fields, 100))).toBe(100);
    const error = thrownBy(() => buildFrame({ ...fields, deadlineMs: 1 }, 100));
    expect([error.code, error.message]).toEqual([
      "limit_exceeded",
      "a frame of 104 bytes is over the limit of 100 bytes",
    ]);
    expect(error.details.hint).toBeDefined();
  });

  test("never builds a frame whose length its header cannot tell", () => {
    const part = new Uint8Array(2 ** 30);
    const fields = { kind: FrameKind.result, peer: 1, call: 1, body: [part, part, part, part] };
    expect(thrownBy(() => buildFrame(fields)).code).toBe("limit_exceeded");
  });
});

test("a deadline is rewritten in place, rounded up and never below nothing", () => {
  const frame = buildFrame({ kind: FrameKind.call, peer: 1, call: 1, deadlineMs: 500, body: Uint8Array.of(1, 2) });
  for (const [leftMs, told] of [
    [0.1, 1],
    [-5, 0],
    [1e12, 0xffff_ffff],
  ] as const) {
    setFrameDeadlineMs(frame, leftMs);
    expect(frameDeadlineMs(frame)).toBe(told);
  }
  expect(frameBody(frame)).toEqual(Uint8Array.of(1, 2));
});

test("a frame that is not admitted is refused by its header, whole or in single bytes", () => {
  const frame = buildFrame({ kind: FrameKind.call, peer: 3, call: 1, body: new Uint8Array(50) });
  for (const step of [1, 7, 16, 100]) {
    let seen = 0;
    const assembler = new FrameAssembler(defaultLimits, (header) => {
      if (framePeer(header) === 3) throw new AirlockError("unauthorized", "not this one");
    });
    const push = () => {
      for (const piece of cut(frame, [step])) {
        seen += piece.byteLength;
        assembler.push(piece, () => expect.unreachable());
      }
    };
    expect(thrownBy(push).code).toBe("unauthorized");
    expect(seen).toBeLessThan(headerBytes + step);
  }
});
