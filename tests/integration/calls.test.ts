/** Calls from a TypeScript host to real workers. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Complex, Float, type Named, NdArray, Tuple } from "../../src/index.ts";
import { rejectionOf } from "../support/errors.ts";
import { packs, until, useWorld } from "./support.ts";

const world = useWorld();

describe("a call", () => {
  test("returns what the node's function returned, types kept", async () => {
    const { pack } = await world.probe();
    const value = {
      list: [1, 2.5, "x", null, true],
      tuple: Tuple.of<unknown>(1, Tuple.of()),
      set: new Set([1]),
      big: 2n ** 70n,
    };
    const result = await pack.call("Echo", { value });
    expect(result).toBeInstanceOf(Tuple);
    expect(result).toEqual(Tuple.of<unknown>(value));
  });

  test("shows Python what JavaScript meant", async () => {
    const { pack } = await world.probe();
    const seen = async (value: unknown) => await pack.call("Describe", { value });
    expect(await seen(new Float(8))).toEqual(Tuple.of("builtins.float", "8.0"));
    expect(await seen(8)).toEqual(Tuple.of("builtins.int", "8"));
    expect(await seen(123_456_789_012)).toEqual(Tuple.of("builtins.int", "123456789012"));
    expect(await seen(new Complex(1, -2))).toEqual(Tuple.of("builtins.complex", "(1-2j)"));
    expect(await seen(new Date(0))).toEqual(
      Tuple.of("datetime.datetime", "datetime.datetime(1970, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)"),
    );
  });

  test("runs coroutines of one worker side by side, and synchronous nodes between them", async () => {
    const { pack } = await world.probe();
    const order: unknown[] = [];
    const slow = pack.call("AsyncEcho", { value: "slow", seconds: 0.3 }).then((out) => order.push(out));
    const quick = pack.call("AsyncEcho", { value: "quick", seconds: 0.05 }).then((out) => order.push(out));
    const sync = pack.call("Echo", { value: "sync" }).then((out) => order.push(out));
    await Promise.all([slow, quick, sync]);
    expect(order).toEqual([Tuple.of("sync"), Tuple.of("quick"), Tuple.of("slow")]);
  });

  test("carries a megabyte and back", async () => {
    const { pack } = await world.probe();
    const data = crypto.getRandomValues(new Uint8Array(65_536)).toHex().repeat(8);
    expect(await pack.call("Echo", { value: data })).toEqual(Tuple.of(data));
  });

  test("passes on a value of a type that this process doesn't know", async () => {
    const { pack } = await world.probe();
    const [mesh] = (await pack.call("MakeMesh")) as [Named];
    expect(mesh.name).toBe("dataclass");
    expect(await pack.call("CountVertices", { mesh })).toEqual(Tuple.of(3));
  });

  test("says where in a result the part lies that cannot cross, and goes on", async () => {
    const { pack } = await world.probe();
    const error = await rejectionOf(pack.call("Unsendable"));
    expect(error.code).toBe("value_unsupported");
    expect(error.message).toContain("value[0]['where'][0]");
    expect(await pack.call("Echo", { value: 1 })).toEqual(Tuple.of(1));
  });
});

describe("an exception", () => {
  test("arrives with its classes, its arguments and the remote traceback", async () => {
    const { pack } = await world.probe();
    const { code, details } = await rejectionOf(pack.call("Raise", { message: "boom", own: true }));
    expect(code).toBe("remote_exception");
    expect(details.exception?.types.slice(0, 2)).toEqual([
      "airlock_pack_probe.nodes:ProbeError",
      "builtins:ValueError",
    ]);
    expect(details.exception?.args).toEqual(["boom", 7]);
    expect(details.exception?.traceback).toContain("raise ProbeError(message, 7)");
    expect(details.exception?.traceback).not.toContain("executor.py");
  });
});

describe("a call ends early", () => {
  test("at its deadline", async () => {
    const { pack } = await world.probe();
    await pack.describe();
    const error = await rejectionOf(pack.call("AsyncEcho", { seconds: 30 }, { deadlineMs: 50 }));
    expect(error.code).toBe("deadline_exceeded");
    expect(await pack.call("Echo", { value: 1 })).toEqual(Tuple.of(1));
  });

  test("when it is aborted, with the signal's own reason; the coroutine is cancelled", async () => {
    const { pack, server } = await world.probe();
    await pack.describe();
    const reason = new Error("enough");
    const controller = new AbortController();
    const call = pack.call("AsyncEcho", { seconds: 30 }, { signal: controller.signal });
    setTimeout(() => controller.abort(reason), 30);
    expect(await call.catch((error: unknown) => error)).toBe(reason);
    await until(() => server.status().packs[0]?.worker?.calls === 0, "the worker has given the call up");
  });
});

describe("what cannot be called", () => {
  test("a node that is not there: the ones that are get named", async () => {
    const { pack } = await world.probe();
    const error = await rejectionOf(pack.call("Ekho"));
    expect(error.code).toBe("node_not_found");
    expect(error.details.hint).toContain("Echo");
  });

  test("a class that is no node", async () => {
    const { pack } = await world.probe();
    expect((await rejectionOf(pack.call("NoFunction"))).code).toBe("node_invalid");
  });

  test("a pack whose import fails: its own exception, each time", async () => {
    const { airlock } = await world.probe();
    const pack = await airlock.open(join(packs, "wrong-import"));
    for (const _ of [1, 2]) {
      const { code, details } = await rejectionOf(pack.call("Anything"));
      expect(code).toBe("remote_exception");
      expect(details.exception?.message).toContain("libmissing.so");
    }
  });

  test("a pack without mappings, and a folder without a manifest", async () => {
    const { airlock } = await world.probe();
    const pack = await airlock.open(join(packs, "no-mappings"));
    expect((await rejectionOf(pack.call("Anything"))).code).toBe("node_invalid");
    expect((await rejectionOf(airlock.open(world.folder))).code).toBe("manifest_invalid");
    expect((await rejectionOf(airlock.open("/nowhere/at/all"))).code).toBe("manifest_invalid");
  });
});

describe("a pack", () => {
  test("is opened without a process, once for each host, and its worker serves all its calls", async () => {
    const { server, airlock, pack } = await world.probe();
    expect(server.status().packs[0]?.worker).toBeNull();
    const again = await airlock.open(join(packs, "probe"));
    const [first, second] = (await Promise.all([pack.describe(), again.describe()])) as { pid: number }[];
    expect(first?.pid).toBe(second?.pid as number);
    const other = await world.connect(server);
    const theirs = (await (await other.open(join(packs, "probe"))).describe()) as { pid: number };
    expect(theirs.pid).not.toBe(first?.pid as number);
  });

  test("describes its nodes and its process", async () => {
    const { pack } = await world.probe();
    const described = (await pack.describe()) as {
      nodes: { name: string; is_async: boolean }[];
      broken: { name: string }[];
    };
    expect(described.nodes.find((node) => node.name === "AsyncEcho")?.is_async).toBe(true);
    expect(described.broken.map((node) => node.name)).toEqual(["NoFunction"]);
  });

  test("has a log of its own, whatever writes to it", async () => {
    const { server, pack } = await world.probe();
    await pack.call("Print", { text: "hello log" });
    const log = readFileSync(server.status().packs[0]?.log as string, "utf8");
    expect(log).toContain("hello log\n");
    expect(log).toContain("hello log on descriptor 2\n");
  });

  test("sees its own environment, and nothing of the server's Python settings or of its own token", async () => {
    process.env["PYTHONPATH"] = "/tmp/not-for-packs";
    try {
      const { pack } = await world.probe();
      const [seen] = (await pack.call("Environment")) as [
        { executable: string; path: string[]; variables: object; cwd: string },
      ];
      expect(seen.executable).toContain(join(".airlock", "test-environments"));
      expect(seen.path).not.toContain("/tmp/not-for-packs");
      expect(Object.keys(seen.variables)).not.toContain("AIRLOCK_TOKEN");
      expect(seen.cwd).toBe(join(packs, "probe"));
    } finally {
      delete process.env["PYTHONPATH"];
    }
  });
});

describe("an image", () => {
  test("goes through a pack without numpy only as an error that says what to install", async () => {
    const { pack } = await world.probe();
    const image = NdArray.float32([1, 2, 2, 3], new Float32Array(12).fill(0.5));
    const error = await rejectionOf(pack.call("ImageMean", { image }));
    expect(error.code).toBe("value_invalid");
    expect(error.details.hint).toContain("numpy");
  });
});
