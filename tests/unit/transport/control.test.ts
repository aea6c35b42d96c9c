import { describe, expect, test } from "bun:test";
import {
  callBodySchema,
  controlParameters,
  helloSchema,
  validate,
  welcomeSchema,
} from "../../../src/transport/control.ts";
import { thrownBy } from "../../support/errors.ts";

const hello = { protocol: { min: 1, max: 1 }, role: "host", pid: 7 };

describe("a hello", () => {
  test("may leave out what has a default", () => {
    expect(validate(helloSchema, hello, "hello")).toEqual({ ...hello, role: "host", features: [], name: "" });
  });

  test("may bring fields of a later version", () => {
    expect(validate(helloSchema, { ...hello, colour: "red" }, "hello")).not.toHaveProperty("colour");
  });

  test.each<[string, object, string]>([
    ["a role that nobody has", { role: "guest" }, "role"],
    ["a negative process id", { pid: -1 }, "pid"],
    ["a process id with a fraction", { pid: 1.5 }, "pid"],
    ["a process id beyond 32 bits", { pid: 2 ** 32 }, "pid"],
    ["a process id beyond a number", { pid: 2n ** 63n }, "pid"],
    ["versions that are text", { protocol: { min: "1", max: 1 } }, "protocol.min"],
    ["a name without end", { name: "n".repeat(129) }, "name"],
    ["a token without end", { token: "t".repeat(129) }, "token"],
    ["features without end", { features: new Array(65).fill("f") }, "features"],
    ["an interpreter without a version", { python: { executable: "python3" } }, "python.version"],
  ])("is refused, field by field, for %s", (_, fields, path) => {
    const error = thrownBy(() => validate(helloSchema, { ...hello, ...fields }, "hello"));
    expect(error.code).toBe("bad_request");
    expect(error.message).toStartWith("malformed hello: ");
    expect(error.message).toContain(path);
  });

  test.each([[null], [[]], ["text"], [5], [new Map()]])("is refused where it is %p", (value) => {
    expect(thrownBy(() => validate(helloSchema, value, "hello")).code).toBe("bad_request");
  });
});

test("a message with many faults names five of them", () => {
  const wrong = thrownBy(() => validate(welcomeSchema, {}, "welcome"));
  expect(wrong.message.split(";").length).toBeLessThanOrEqual(5);
});

test.each<[keyof typeof controlParameters, object]>([
  ["open", {}],
  ["open", { folder: 5 }],
  ["open", { folder: "f".repeat(4097) }],
  ["open", { folder: "f", force: true }],
  ["open", { folder: "f", manifest: ["name"] }],
  ["open", { folder: "f", entry: { module: "a.b" } }],
  ["open", { folder: "f", entry: { module: "a.b", settings: "{}", more: 1 } }],
  ["prepare", { pack: "one" }],
  ["close", { pack: -1 }],
  ["status", { verbose: true }],
])("parameters of %s are refused where they are %j", (method, parameters) => {
  expect(thrownBy(() => validate(controlParameters[method], parameters, method)).code).toBe("bad_request");
});

test.each([
  [["run", [], {}], true],
  [["run", [1, "a"], { k: 1 }], true],
  [["run", []], false],
  [["run", [], {}, 1], false],
  [[5, [], {}], false],
  [["run", {}, {}], false],
  [["r".repeat(257), [], {}], false],
])("a call's body %# is method, arguments and keywords", (body, lawful) => {
  const check = () => validate(callBodySchema, body, "call");
  if (lawful) expect(check).not.toThrow();
  else expect(thrownBy(check).code).toBe("bad_request");
});
