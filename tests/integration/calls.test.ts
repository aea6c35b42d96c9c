/** Calls from a TypeScript host to real workers. */
import { describe, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Complex, Float, type Named, NdArray, type Pack, Tuple } from "../../src/index.ts";
import { rejectionOf } from "../support/errors.ts";
import { packs, until, untilLogged, useWorld } from "./support.ts";

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
    call.catch(() => undefined);
    await untilLogged(server, "waiting");
    controller.abort(reason);
    expect(await call.catch((error: unknown) => error)).toBe(reason);
    await untilLogged(server, "given up");
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
    expect(server.status().packs[0]?.workers).toMatchObject([{ state: "dead", pid: 0 }]);
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

  test("that is closed during a call says so to the caller", async () => {
    const { server, pack } = await world.probe();
    await pack.describe();
    const call = rejectionOf(pack.call("Sleep", { seconds: 600 }));
    await untilLogged(server, "sleeping");
    await pack.close();
    const error = await call;
    expect([error.code, error.message]).toEqual(["cancelled", "the pack probe was closed"]);
  });

  test("whose manifest was changed is told to close it, and then follows", async () => {
    const { airlock } = await world.probe();
    const folder = join(world.folder, "changing");
    mkdirSync(folder);
    copyFileSync(join(packs, "probe", "nodes.py"), join(folder, "__init__.py"));
    const write = (seed: number) =>
      writeFileSync(join(folder, "pyisolate.yaml"), `isolated: true\nenv: {PYTHONHASHSEED: "${seed}"}\n`);
    const seedOf = async (pack: Pack) => {
      const [seen] = (await pack.call("Environment")) as [{ variables: Record<string, string> }];
      return seen.variables["PYTHONHASHSEED"];
    };
    write(1);
    const pack = await airlock.open(folder);
    expect(await seedOf(pack)).toBe("1");
    write(2);
    const again = await airlock.open(folder);
    expect(again.warnings).toEqual([expect.stringContaining("close the pack and open it again")]);
    expect(await seedOf(again)).toBe("1");
    await again.close();
    const fresh = await airlock.open(folder);
    expect(fresh.warnings).toEqual([]);
    expect(await seedOf(fresh)).toBe("2");
  });

  test("that two hosts have open has a log for each worker", async () => {
    const { server, pack } = await world.probe();
    const other = await (await world.connect(server)).open(join(packs, "probe"));
    await Promise.all([pack.call("Print", { text: "one" }), other.call("Print", { text: "two" })]);
    const logs = server.status().packs.map(({ workers }) => workers[0]?.log as string);
    expect(new Set(logs).size).toBe(2);
    const textOf = (log: string) => readFileSync(log, "utf8");
    await until(() => logs.every((log) => textOf(log).includes("on descriptor 2")), "both have written");
    const texts = logs.map(textOf);
    expect(texts.map((text) => [text.includes("one"), text.includes("two")])).toEqual([
      [true, false],
      [false, true],
    ]);
  });

  test("has a log of its own, whatever writes to it", async () => {
    const { server, pack } = await world.probe();
    await pack.call("Print", { text: "hello log" });
    await untilLogged(server, "hello log\n");
    await untilLogged(server, "hello log on descriptor 2\n");
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
