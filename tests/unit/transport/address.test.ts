import { expect, test } from "bun:test";
import { checkSocketPath, defaultFolders, defaultSocketPath } from "../../../src/transport/address.ts";
import { thrownBy } from "../../support/errors.ts";

test.each([
  [{}, "/tmp/airlock-1000/server.sock"],
  [{ XDG_RUNTIME_DIR: "/run/user/1000" }, "/run/user/1000/airlock/server.sock"],
  [{ XDG_RUNTIME_DIR: "" }, "/tmp/airlock-1000/server.sock"],
  [{ XDG_RUNTIME_DIR: "/run/user/1000", AIRLOCK_SOCKET: "/srv/a.sock" }, "/srv/a.sock"],
  [{ AIRLOCK_SOCKET: "" }, "/tmp/airlock-1000/server.sock"],
])("with %j the socket is %p", (variables, path) => {
  expect(defaultSocketPath(variables, 1000, "/tmp")).toBe(path);
});

test("a socket's path may have 107 bytes, counted as bytes", () => {
  expect(checkSocketPath(`/${"a".repeat(106)}`)).toHaveLength(107);
  expect(thrownBy(() => checkSocketPath(`/${"a".repeat(107)}`)).message).toContain("108 bytes");
  expect(thrownBy(() => checkSocketPath(`/${"é".repeat(60)}`)).code).toBe("bad_request");
  expect(
    thrownBy(() => defaultSocketPath({ AIRLOCK_SOCKET: `/${"a".repeat(200)}` }, 0, "/tmp")).details.hint,
  ).toContain("AIRLOCK_SOCKET");
});

test.each([
  [{}, "/home/u/.cache/airlock", "/home/u/.local/state/airlock"],
  [{ XDG_CACHE_HOME: "/c", XDG_STATE_HOME: "/s" }, "/c/airlock", "/s/airlock"],
  [{ XDG_CACHE_HOME: "" }, "/home/u/.cache/airlock", "/home/u/.local/state/airlock"],
])("with %j the folders follow the XDG base directories", (variables, cache, state) => {
  expect(defaultFolders(variables, "/home/u")).toEqual({
    environments: `${cache}/environments`,
    libraries: `${cache}/libraries`,
    logs: `${state}/logs`,
  });
});
