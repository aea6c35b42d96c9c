import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decode, encode, referencesIn } from "../../../src/transport/codec.ts";
import { rewriteExtensions } from "../../../src/transport/raw-extensions.ts";
import { Reference } from "../../../src/transport/references.ts";
import { Named, Tuple } from "../../../src/transport/values.ts";
import { thrownBy } from "../../support/errors.ts";
import { anyValue } from "../../support/values.ts";

const themselves = { toReference: (value: object) => value as Reference, fromReference: (each: Reference) => each };
const own = (id: number) => new Reference(id, { kind: "object", type: "m:O" });

test("a value without references is left as it is", () => {
  fc.assert(
    fc.property(anyValue, (value) => {
      const bytes = encode(value);
      const replace = (): never => {
        throw new Error("there is none");
      };
      expect(rewriteExtensions(bytes, { reference: replace, arrayIndex: replace })).toBe(bytes);
      expect(referencesIn(bytes)).toEqual([]);
    }),
  );
});

test.each(["short", "x".repeat(300), "x".repeat(70_000)])(
  "each reference is replaced, whatever is around it and however long the new one is",
  (type) => {
    fc.assert(
      fc.property(anyValue, anyValue, fc.array(fc.nat(), { maxLength: 3 }), (before, after, ids) => {
        const value = (make: (id: number) => Reference) =>
          Tuple.of<unknown>(
            before,
            new Map([["many", ids.map(make)]]),
            new Named("n", Tuple.of(make(1), after)),
            make(2),
          );
        const bytes = encode(value(own), themselves);
        const replaced = new Reference(2 ** 50, { kind: "function", type });
        const rewritten = rewriteExtensions(bytes, { reference: () => encode(replaced, themselves) });
        expect(decode(rewritten, themselves)).toEqual(
          decode(
            encode(
              value(() => replaced),
              themselves,
            ),
            themselves,
          ),
        );
        expect(referencesIn(bytes).map(({ id }) => id)).toEqual([...ids, 1, 2]);
      }),
      { numRuns: 30 },
    );
  },
);

describe("a value that is not one", () => {
  test.each(["c1", "9201", "d80794", "c70507a0"])("is refused before a reference is looked for: %s", (hex) => {
    expect(thrownBy(() => referencesIn(new Uint8Array(Buffer.from(hex, "hex")))).code).toBe("value_invalid");
  });
});
