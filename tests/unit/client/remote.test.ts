import { describe, expect, test } from "bun:test";
import { Keywords } from "../../../src/client/keywords.ts";
import { OpenedObject, type Remote, remote } from "../../../src/client/remote.ts";
import { errorBody } from "../../../src/client/thrown.ts";
import { decode } from "../../../src/transport/codec.ts";
import { AirlockError } from "../../../src/transport/errors.ts";
import { thrownBy } from "../../support/errors.ts";

describe("opening", () => {
  test.each([() => 1, null, 5, "text"])("%p is refused: it is no object", (value) => {
    expect(() => remote(value as object)).toThrow(TypeError);
  });

  test.each(["_private", "__proto__", "constructor", "prototype", ""])("the name %p is refused", (name) => {
    expect(() => remote({}, "fine", name)).toThrow(name === "" ? '""' : name);
  });
});

describe("an opened object", () => {
  class Base {
    inherited(): string {
      return "from above";
    }
  }

  class Model extends Base {
    own = 1;
    get computed(): number {
      return this.own + 1;
    }
    scaled(by: number, { plus = 0 } = {}): number {
      return this.own * by + plus;
    }
  }

  const opened = (opening: Remote = remote(new Model())) => new OpenedObject(opening);

  test("shows its own properties, its accessors, and that what it and the classes above define are methods", () => {
    expect(["own", "computed", "scaled", "inherited"].map((name) => opened().get(name))).toEqual([
      [0, 1],
      [0, 2],
      [1, null],
      [1, null],
    ]);
  });

  test("invokes a method as its own, with keywords as the last argument", () => {
    expect(opened().invoke("scaled", [3], { plus: 2 })).toBe(5);
    expect(opened().invoke("scaled", [3], {})).toBe(3);
    expect(opened().invoke("inherited", [], {})).toBe("from above");
    const seen = opened(remote({ see: (...args: unknown[]) => args })).invoke("see", [1], { by: 2 }) as unknown[];
    expect(seen).toEqual([1, new Keywords({ by: 2 })]);
  });

  test("says so where a name is no method, or is not open, or no name at all", () => {
    expect(thrownBy(() => opened().invoke("own", [], {})).message).toBe('"own" of javascript:Model is no method');
    for (const name of ["toString", "valueOf", "__defineGetter__", "_own", 5, null, undefined]) {
      expect(thrownBy(() => opened().get(name)).message).toContain("is not open to other processes");
    }
  });

  test("of no class at all shows what it has", () => {
    const bare = Object.assign(Object.create(null) as object, { own: 1 });
    expect(opened(remote(bare)).get("own")).toEqual([0, 1]);
  });
});

describe("what is thrown", () => {
  const crossed = (thrown: unknown) => decode(errorBody(thrown)) as Record<string, unknown>;

  test("crosses with its classes, whatever it is", () => {
    class ModelError extends TypeError {}
    expect(crossed(new ModelError("bad"))).toMatchObject({
      code: "remote_exception",
      message: "TypeError: bad",
      exception: { types: ["javascript:ModelError", "javascript:TypeError"], message: "bad", args: ["bad"] },
    });
    expect(crossed(new Error("plain"))).toMatchObject({ exception: { types: ["javascript:Error"] } });
    expect(crossed("just text")).toMatchObject({ message: "Error: just text" });
    expect(crossed(new Error("half of a pair: \ud800"))).toMatchObject({ message: "Error: half of a pair: \ufffd" });
  });

  test("is passed on as what it was where it is an error of Airlock's", () => {
    const exception = { types: ["m:E"], message: "bad", traceback: "Traceback", args: [1] };
    const error = new AirlockError("remote_exception", "pack blur: bad", { pack: "blur", exception });
    expect(crossed(error)).toEqual({ code: "remote_exception", message: "pack blur: bad", pack: "blur", exception });
  });

  test("arrives without what cannot cross", () => {
    const exception = { types: ["m:E"], message: "bad", traceback: "Traceback", args: [() => 1] };
    const error = new AirlockError("remote_exception", "bad", { pack: "blur", exception });
    expect(crossed(error)).toEqual({ code: "remote_exception", message: "bad", pack: "blur" });
  });
});
