import { describe, expect, test } from "bun:test";
import { ReferenceIds, References } from "../../../src/client/references.ts";
import { remote } from "../../../src/client/remote.ts";
import { systemClock } from "../../../src/transport/clock.ts";
import { decode, encode, encodeParts } from "../../../src/transport/codec.ts";
import { AirlockError } from "../../../src/transport/errors.ts";
import { Reference } from "../../../src/transport/references.ts";
import { joined } from "../../support/bytes.ts";
import { thrownBy } from "../../support/errors.ts";
import { settled } from "../../support/peers.ts";
import { collected, until } from "../../support/until.ts";

const route = { name: "relay" };

function made() {
  const released: [object | undefined, readonly number[]][] = [];
  const references = new References({
    ids: new ReferenceIds(),
    clock: systemClock,
    callOwner: async (...call) => call,
    release: (way, counts) => released.push([way, counts]),
  });
  /** The bytes of a message, and its draft. */
  const write = (value: unknown) => {
    const draft = references.draft(route);
    return { draft, bytes: joined(encodeParts(value, draft)) };
  };
  /** The bytes of a message of the other side's, which holds these references. */
  const theirs = (value: unknown) => encode(value, { toReference: (each) => each as Reference });
  return { references, released, write, theirs };
}

/** The id of the only reference in a message. */
function idIn(bytes: Uint8Array): number {
  let id = -1;
  decode(bytes, {
    fromReference: (reference) => {
      id = reference.id;
      return null;
    },
  });
  return id;
}

const object = { kind: "function", type: "m:f" } as const;
const isThere = (references: References, id: number): boolean => {
  try {
    references.fromReference(new Reference(id));
    return true;
  } catch (error) {
    expect((error as AirlockError).code).toBe("reference_gone");
    return false;
  }
};

describe("an object that is sent", () => {
  test("has one reference however often, and is dropped when all receipts were given back", () => {
    const { references, write } = made();
    const f = () => 1;
    const ids = [write(f), write([f]), write({ f })].map(({ bytes }) => idIn(bytes));
    expect(new Set(ids).size).toBe(1);
    const [id = 0] = ids;
    references.released(encode([id, 2]));
    expect(isThere(references, id)).toBe(true);
    references.released(encode([id, 1]));
    expect(isThere(references, id)).toBe(false);
    expect(idIn(write(f).bytes)).toBeGreaterThan(id);
  });

  test("counts once for each time that a message holds it", () => {
    const { references, write } = made();
    const f = () => 1;
    const { draft } = write([f, f, [f]]);
    expect(draft.hasReferences).toBe(true);
    const id = idIn(write(f).bytes);
    references.released(encode([id, 3]));
    expect(isThere(references, id)).toBe(true);
    references.released(encode([id, 1]));
    expect(isThere(references, id)).toBe(false);
  });

  test("in a message that is never sent is not held", () => {
    const { references, write } = made();
    const { draft, bytes } = write(() => 1);
    draft.undo();
    draft.undo();
    expect(isThere(references, idIn(bytes))).toBe(false);
  });

  test("in a message that was sent stays, whatever becomes of that", () => {
    const { references, write } = made();
    const { draft, bytes } = write(() => 1);
    draft.sent();
    draft.undo();
    expect(isThere(references, idIn(bytes))).toBe(true);
  });

  test("in a message that was sent and reached nobody is not held", () => {
    const { references, write } = made();
    const { draft, bytes } = write(() => 1);
    draft.sent();
    draft.returned();
    draft.returned();
    expect(isThere(references, idIn(bytes))).toBe(false);
  });

  test("opened for other names is another reference", () => {
    const { write } = made();
    const model = { a: 1, b: 2 };
    const ids = [remote(model), remote(model), remote(model, "a"), remote(model, "a")].map((each) =>
      idIn(write(each).bytes),
    );
    expect([ids[0] === ids[1], ids[1] === ids[2], ids[2] === ids[3]]).toEqual([true, false, true]);
  });

  test.each([
    ["nothing", ""],
    ["a map", "80"],
    ["text", "91a161"],
    ["half a pair", "9101"],
    ["an id that is unknown", "920101"],
    ["a count below zero", "9201ff"],
  ])("is not moved by a release of %s", (_, hex) => {
    const { references, write } = made();
    const id = idIn(write(() => 1).bytes);
    references.released(new Uint8Array(Buffer.from(hex, "hex")));
    expect(isThere(references, id)).toBe(true);
  });

  test("is gone when the pair has ended, and no other can be sent", () => {
    const { references, write } = made();
    const id = idIn(write(() => 1).bytes);
    references.end(new AirlockError("reference_gone", "the worker has ended"));
    expect(isThere(references, id)).toBe(false);
    expect(thrownBy(() => write(() => 2)).message).toBe("the worker has ended");
  });

  test("has a number that no earlier process would guess", () => {
    const ids = Array.from({ length: 20 }, () => new ReferenceIds().next());
    expect(new Set(ids).size).toBe(20);
    expect(ids.every((id) => Number.isSafeInteger(id) && id > 0)).toBe(true);
    expect(Math.max(...ids)).toBeGreaterThan(2 ** 40);
  });
});

describe("a stand-in", () => {
  test("gives back as many receipts as there were, all at once, by the route on which it last went home", async () => {
    const { references, released, write, theirs } = made();
    (() => {
      const bytes = theirs([new Reference(9, object), new Reference(9, object)]);
      const [one, two] = decode(bytes, references) as object[];
      expect(one).toBe(two as object);
      expect(decode(theirs(new Reference(9, object)), references)).toBe(one as object);
      const { draft } = write({ one });
      expect(draft.hasReferences).toBe(true);
      decode(theirs(new Reference(10, object)), references);
    })();
    await collected(() => released.flatMap(([, counts]) => counts).length >= 4, "both are given back");
    const given = released.flatMap(([way, counts]) => counts.map((count) => [way, count]));
    expect(given).toContainEqual([route, 9]);
    expect(given).toContainEqual([route, 3]);
    expect(given).toContainEqual([undefined, 10]);
  });

  test("that comes again after it was dropped is another, with receipts of its own", async () => {
    const { references, released, theirs } = made();
    const bytes = theirs(new Reference(9, object));
    const first = (() => new WeakRef(decode(bytes, references) as object))();
    await collected(() => first.deref() === undefined, "the first is garbage");
    const second = decode(bytes, references) as () => Promise<unknown>;
    await settled();
    await collected(() => released.length > 0, "the first is given back");
    expect(released).toEqual([[undefined, [9, 1]]]);
    expect(await second()).toEqual(["ref_call", [9], {}, second, {}]);
  });

  test("is reachable as long as a message that brings it home is", async () => {
    const { references, released, write, theirs } = made();
    const { draft } = (() => write(decode(theirs(new Reference(9, object)), references)))();
    for (let round = 0; round < 5; round++) {
      Bun.gc(true);
      await Bun.sleep(10);
    }
    expect(released).toEqual([]);
    expect(draft.hasReferences).toBe(true);
  });

  test("fails once the pair has ended, and is not passed on", async () => {
    const { references, write, theirs } = made();
    const f = decode(theirs(new Reference(9, object)), references) as () => Promise<unknown>;
    references.end(new AirlockError("reference_gone", "the worker has ended"));
    expect(await f().catch((error: AirlockError) => error.code)).toBe("reference_gone");
    expect(thrownBy(() => write(f)).code).toBe("reference_gone");
  });
});

describe("what nobody waits for", () => {
  test("is given back at once, or with the stand-in that there is", async () => {
    const { references, released, theirs } = made();
    const kept = decode(theirs(new Reference(9, object)), references);
    references.discard(theirs([new Reference(9, object), new Reference(10, object), new Reference(10, object)]));
    references.discard(new Uint8Array([0xc1]));
    await until(() => released.length > 0, "it is given back");
    expect(released).toEqual([[undefined, [10, 1, 10, 1]]]);
    expect(kept).toBeFunction();
  });
});
