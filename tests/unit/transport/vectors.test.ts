import { describe, expect, test } from "bun:test";
import { decode, encode } from "../../../src/transport/codec.ts";
import { errorCodes } from "../../../src/transport/errors.ts";
import {
  buildFrame,
  type FrameKind,
  frameAttachmentCount,
  frameAttachments,
  frameBody,
  frameCall,
  frameDeadlineMs,
  frameHasArrays,
  frameHasReferences,
  frameKind,
  frameParent,
  framePeer,
} from "../../../src/transport/frame.ts";
import { FrameAssembler } from "../../../src/transport/frame-assembler.ts";
import { defaultLimits } from "../../../src/transport/limits.ts";
import type { Reference } from "../../../src/transport/references.ts";
import { bytesOf, hexOf, joined } from "../../support/bytes.ts";
import { bytesOfHex, type Description, type Hex, sentValue, valueFrom, vectors } from "../../support/descriptions.ts";
import { thrownBy } from "../../support/errors.ts";

interface ValueCase {
  readonly name: string;
  readonly value: Description;
  readonly hex: Hex;
  readonly typescript_hex?: Hex;
  readonly decodes_only?: boolean;
}

interface FrameCases {
  readonly frames: readonly {
    readonly name: string;
    readonly kind: FrameKind;
    readonly peer: number;
    readonly call: number;
    readonly deadline_ms: number | null;
    readonly parent?: number;
    readonly references?: true;
    readonly arrays?: true;
    readonly attachments?: readonly (readonly [number, number, number, number])[];
    readonly body: string;
    readonly hex: string;
  }[];
  readonly malformed: readonly {
    readonly name: string;
    readonly hex: string;
    readonly code: string;
    readonly frame_bytes_max?: number;
  }[];
  readonly deadlines: readonly { readonly deadline_ms: number; readonly hex: string }[];
}

interface InvalidCase {
  readonly name: string;
  readonly hex: Hex;
  readonly refused_by: readonly ("python" | "typescript")[];
}

const values = await vectors<ValueCase[]>("values");
const invalid = await vectors<InvalidCase[]>("invalid-values");
const references = await vectors<{ values: ValueCase[]; invalid: InvalidCase[] }>("references");
const frames = await vectors<FrameCases>("frames");
const codes = await vectors<string[]>("errors");

describe("values", () => {
  const written = values.filter((vector) => !vector.decodes_only);
  test.each(written.map((vector) => [vector.name, vector] as const))("%s is encoded as written down", (_, vector) => {
    // msgpackr may have another form for a value than Python's msgpack; both mean the same.
    const forms = [vector.hex, vector.typescript_hex ?? vector.hex].map((hex) => hexOf(bytesOfHex(hex)));
    expect(forms).toContain(hexOf(encode(sentValue(vector.value))));
  });

  test.each(values.map((vector) => [vector.name, vector] as const))("%s is decoded with its types", (_, vector) => {
    for (const hex of [vector.hex, vector.typescript_hex]) {
      if (hex !== undefined) expect(decode(bytesOfHex(hex))).toStrictEqual(valueFrom(vector.value, "decoded"));
    }
  });

  test("have names of their own", () => {
    expect(new Set(values.map(({ name }) => name)).size).toBe(values.length);
  });
});

describe("invalid values", () => {
  const refused = invalid.filter(({ refused_by }) => refused_by.includes("typescript"));
  test.each(refused.map((vector) => [vector.name, vector] as const))("%s is refused, and does no harm", (_, vector) => {
    expect(thrownBy(() => decode(bytesOfHex(vector.hex))).code).toBe("value_invalid");
    expect(decode(bytesOf("93c0c3a161"))).toEqual([null, true, "a"]);
  });

  const elsewhere = invalid.filter(({ refused_by }) => !refused_by.includes("typescript"));
  test.each(elsewhere.map((vector) => [vector.name, vector] as const))(
    "%s does no harm where it is read",
    (_, vector) => {
      try {
        decode(bytesOfHex(vector.hex));
      } catch (error) {
        expect(error).toMatchObject({ code: "value_invalid" });
      }
      expect(decode(bytesOf("93c0c3a161"))).toEqual([null, true, "a"]);
    },
  );
});

describe("references", () => {
  /** Gives out and takes references in place of what they name. */
  const themselves = { toReference: (value: object) => value as Reference, fromReference: (each: Reference) => each };

  test.each(references.values.map((vector) => [vector.name, vector] as const))("%s: both ways", (_, vector) => {
    const { hex, typescript_hex = hex } = vector;
    expect(hexOf(encode(sentValue(vector.value), themselves))).toBe(hexOf(bytesOfHex(typescript_hex)));
    for (const form of [hex, typescript_hex]) {
      expect(decode(bytesOfHex(form), themselves)).toStrictEqual(valueFrom(vector.value, "decoded"));
    }
  });

  const refused = references.invalid.filter(({ refused_by }) => refused_by.includes("typescript"));
  test.each(refused.map((vector) => [vector.name, vector] as const))("with %s are refused", (_, vector) => {
    expect(thrownBy(() => decode(bytesOfHex(vector.hex), themselves)).code).toBe("value_invalid");
  });

  const all = [...references.values, ...references.invalid];
  test.each(all.map((vector) => [vector.name, vector] as const))("%s: refused where none is expected", (_, vector) => {
    expect(thrownBy(() => decode(bytesOfHex(vector.hex))).code).toBe("value_invalid");
  });
});

describe("frames", () => {
  test.each(frames.frames.map((vector) => [vector.name, vector] as const))("%s is built and read", (_, vector) => {
    const { kind, peer, call, body, hex, parent, references = false, arrays = false } = vector;
    const deadlineMs = vector.deadline_ms ?? undefined;
    const attachments = (vector.attachments ?? []).map(([segment, page, pages, generation]) => ({
      segment,
      page,
      pages,
      generation,
    }));
    const holds = { hasReferences: references, hasArrays: arrays, attachments };
    expect(hexOf(buildFrame({ kind, peer, call, deadlineMs, parent, ...holds, body: bytesOf(body) }))).toBe(hex);
    const frame = bytesOf(hex);
    expect(frameKind(frame)).toBe(kind);
    expect(framePeer(frame)).toBe(peer);
    expect(frameCall(frame)).toBe(call);
    expect(frameDeadlineMs(frame)).toBe(deadlineMs);
    expect(frameParent(frame)).toBe(parent);
    expect(frameHasReferences(frame)).toBe(references);
    expect(frameHasArrays(frame)).toBe(arrays);
    expect(frameAttachmentCount(frame)).toBe(attachments.length);
    expect(frameAttachments(frame)).toEqual(attachments);
    expect(hexOf(frameBody(frame))).toBe(body);
  });

  const stream = joined(frames.frames.map(({ hex }) => bytesOf(hex)));
  test.each([1, 3, 16, 17, 1000, stream.byteLength])("are cut out of one stream that comes by %p bytes", (size) => {
    const received: string[] = [];
    const assembler = new FrameAssembler(defaultLimits);
    for (let at = 0; at < stream.byteLength; at += size) {
      assembler.push(stream.slice(at, at + size), (frame) => received.push(hexOf(frame)));
    }
    expect(received).toEqual(frames.frames.map(({ hex }) => hex));
  });

  test.each(frames.malformed.map((vector) => [vector.name, vector] as const))("%s is refused", (_, vector) => {
    const frameBytesMax = vector.frame_bytes_max ?? defaultLimits.frameBytesMax;
    for (const size of [1, 1000]) {
      const assembler = new FrameAssembler({ ...defaultLimits, frameBytesMax });
      const bytes = bytesOf(vector.hex);
      const error = thrownBy(() => {
        for (let at = 0; at < bytes.byteLength; at += size) assembler.push(bytes.slice(at, at + size), () => undefined);
      });
      expect(error.code as string).toBe(vector.code);
    }
  });

  test.each(frames.deadlines.map((vector) => [vector.deadline_ms, vector.hex] as const))(
    "of a call within %p ms tell it in whole milliseconds",
    (deadlineMs, hex) => {
      expect(hexOf(buildFrame({ kind: 3, peer: 0, call: 0, deadlineMs }))).toBe(hex);
    },
  );
});

test("the error codes are the closed list", () => {
  expect(Object.keys(errorCodes).sort()).toEqual(codes);
});
