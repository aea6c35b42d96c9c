import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decode, encode } from "../../../src/transport/codec.ts";
import {
  AirlockError,
  type ErrorCode,
  type ErrorDetails,
  errorCodes,
  errorFromWire,
  errorToWire,
  toAirlockError,
} from "../../../src/transport/errors.ts";

const text = fc.string({ unit: "grapheme" });
const details = fc.record(
  {
    hint: text,
    pack: text,
    exit: text,
    log: text,
    stack: text,
    exception: fc.record({ types: fc.array(text), message: text, traceback: text, args: fc.array(fc.integer()) }),
  },
  { requiredKeys: [] },
) as fc.Arbitrary<ErrorDetails>;

describe("an error", () => {
  test("crosses with its code, message and details", () => {
    const codes = fc.constantFrom(...(Object.keys(errorCodes) as ErrorCode[]));
    fc.assert(
      fc.property(codes, text, details, (code, message, about) => {
        const crossed = errorFromWire(decode(encode(errorToWire(new AirlockError(code, message, about)))));
        expect(crossed).toBeInstanceOf(AirlockError);
        expect([crossed.code, crossed.message, crossed.details]).toEqual([code, message, about]);
      }),
    );
  });

  test.each([
    ["an unknown code", { code: "no_such_code", message: "m" }],
    ["a code that every object has", { code: "toString", message: "m" }],
    ["the code __proto__", new Map([["code", "__proto__"]])],
    ["no message", { code: "cancelled" }],
    ["a message that is no text", { code: "cancelled", message: 7 }],
    ["a list", [1, 2]],
    ["nothing", null],
    ["text", "cancelled"],
  ])("that makes no sense becomes a protocol error: %s", (_, body) => {
    expect(errorFromWire(body).code).toBe("protocol_error");
  });

  test("loses details of the wrong type, and those that nobody knows", () => {
    const body = { code: "cancelled", message: "m", hint: 5, log: null, exception: { types: "no" }, more: "x" };
    expect(errorFromWire(body).details).toEqual({});
  });

  test("crosses also where its texts were cut within a character", () => {
    const error = new AirlockError("bad_request", "cut \ud83d", { hint: "\udca9", pack: "p" });
    const expected = { code: "bad_request", message: "cut \ufffd", hint: "\ufffd", pack: "p" };
    expect(errorToWire(error)).toEqual(expected);
  });

  test("is described with traceback, log, stack and hint, in this order", () => {
    const exception = { types: ["builtins.ValueError"], message: "bad", traceback: "Traceback\n  boom\n\n" };
    const error = new AirlockError("remote_exception", "it failed", {
      hint: "try again",
      log: "last line\n",
      stack: "Current thread\n",
      exception,
    });
    expect(error.describe()).toBe("it failed\nTraceback\n  boom\nlast line\nCurrent thread\n→ try again");
    expect(new AirlockError("cancelled", "only this", { log: "  \n" }).describe()).toBe("only this");
  });
});

test("what is thrown is wrapped, unless it is an error of ours", () => {
  const ours = new AirlockError("cancelled", "m");
  const theirs = new TypeError("not a function");
  expect(toAirlockError(ours, "bad_request")).toBe(ours);
  const wrapped = toAirlockError(theirs);
  expect([wrapped.code, wrapped.message, wrapped.cause]).toEqual(["internal_error", "not a function", theirs]);
  expect(toAirlockError("text", "bad_request").message).toBe("text");
});
