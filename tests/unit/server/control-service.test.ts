import { describe, expect, test } from "bun:test";
import { ControlService } from "../../../src/server/control-service.ts";
import type { Environment } from "../../../src/server/environments/environments.ts";
import type { PackManifest } from "../../../src/server/environments/manifest.ts";
import type { Pack } from "../../../src/server/pack.ts";
import { PackTable } from "../../../src/server/pack-table.ts";
import type { Session } from "../../../src/server/session.ts";
import { encode } from "../../../src/transport/codec.ts";
import type { CallTimeout, Progress, Status } from "../../../src/transport/control.ts";
import { AirlockError } from "../../../src/transport/errors.ts";
import { bytesOf } from "../../support/bytes.ts";
import { manifestOf, settled, workerHello } from "../../support/peers.ts";
import { newSegments } from "../../support/segments.ts";
import { newCall, newSession } from "../../support/sessions.ts";

const status: Status = { server: { version: "1", pid: 1, socket: "/s" }, hosts: [], packs: [] };
const environment: Environment = {
  directory: "/e",
  python: "/e/python",
  key: "k",
  pythonVersion: "3.12.1",
  fresh: true,
};

/** A pack that records what is asked of it. */
class FakePack {
  readonly peer: number;
  readonly host: Session;
  manifest: PackManifest;
  readonly warnings: readonly string[] = [];
  callTimeout: CallTimeout | undefined;
  readonly audience = 0;
  readonly ended = Promise.resolve();
  readonly nodes = { Blur: { idempotent: true, sticky: false } };
  closes = 0;
  restarts = 0;
  /** What the host said of the workers in its slots. */
  readonly said: string[] = [];

  constructor(peer: number, host: Session, manifest: PackManifest) {
    this.peer = peer;
    this.host = host;
    this.manifest = manifest;
  }

  get name(): string {
    return this.manifest.name;
  }

  get peers(): number[] {
    return [this.peer, this.peer + 50];
  }

  get slots(): unknown[] {
    return this.peers.map((peer) => ({
      peer,
      lines: {
        endOverdue: (line: number) => this.said.push(`${peer} overdue ${line}`),
        left: (line: number) => this.said.push(`${peer} left ${line}`),
      },
      retire: async () => this.said.push(`${peer} retire`),
      workerOf: (pid: number) => (pid === peer ? { dumpStacks: async () => `stacks of ${pid}` } : undefined),
    }));
  }

  async restart(): Promise<void> {
    this.restarts += 1;
  }

  reopen(manifest: PackManifest): void {
    this.manifest = manifest;
  }

  async prepare(onProgress: (progress: Progress) => void): Promise<Environment> {
    onProgress({ pack: this.manifest.name, stage: "install", message: "m" });
    return environment;
  }

  status(): number {
    return this.peer;
  }

  close(): void {
    this.closes += 1;
  }
}

function newService(packsPerHostMax = 3) {
  const packs: FakePack[] = [];
  const progress: Progress[] = [];
  const stops: (number | undefined)[] = [];
  const looks: unknown[] = [];
  const libraries: { path?: string } = {};
  let outcome: { value?: unknown; error?: AirlockError }[] = [];
  const table = new PackTable({
    packsPerHostMax,
    newPack: (host, manifest) => {
      const pack = new FakePack(100 + packs.length, host, manifest);
      packs.push(pack);
      return pack as unknown as Pack;
    },
  });
  const notify = () => undefined;
  const { segments } = newSegments({ packOf: (host, peer) => table.get(host, peer), notify });
  const service = new ControlService({
    packs: table,
    segments,
    loadManifest: async (folder, given) => {
      if (given !== undefined) return { ...manifestOf(String(given["name"]), folder), isGiven: true };
      if (folder === "/nowhere") throw new AirlockError("manifest_invalid", "there is no such folder");
      // Whatever path leads to a folder, the manifest names the folder itself.
      return manifestOf("blur", folder.replace("/link/", "/packs/"));
    },
    status: () => status,
    look: async () => void looks.push("look"),
    nursery: async () => libraries.path,
    memoryTold: (host, report) => void looks.push({ host: host.peer, report }),
    stop: (drainMs) => void stops.push(drainMs),
    isStopping: () => stops.length > 0,
    answer: (_, value) => void outcome.push({ value }),
    fail: (_, error) => void outcome.push({ error }),
    progress: (_, told) => void progress.push(told),
  });
  const host = newSession(1);
  const handle = (id: number, body: Uint8Array, caller = host) => {
    const call = newCall(caller, id, 0);
    service.handle(call, body);
    return call;
  };
  const send = async (body: Uint8Array, caller = host) => {
    handle(1, body, caller);
    await settled();
    const [only, ...more] = outcome;
    outcome = [];
    expect(more).toEqual([]);
    return only ?? {};
  };
  const ask = (method: unknown, keywords: unknown = {}, caller = host) => send(encode([method, [], keywords]), caller);
  return { table, packs, progress, stops, looks, libraries, handle, send, ask };
}

describe("open", () => {
  test("gives a pack, and the same one for the same folder", async () => {
    const { ask, packs, table } = newService();
    const opened = {
      value: {
        pack: 100,
        workers: [100, 150],
        audience: 0,
        fresh_process: false,
        nodes: { Blur: { idempotent: true, sticky: false } },
        name: "blur",
        folder: "/packs/blur",
        warnings: [],
      },
    };
    expect(await ask("open", { folder: "/packs/blur" })).toEqual(opened);
    expect(await ask("open", { folder: "/link/blur" })).toEqual(opened);
    expect([packs.length, table.status().length]).toEqual([1, 1]);
  });

  test("tells the time that the pack gives its calls, as it is now", async () => {
    const { ask, packs } = newService();
    await ask("open", { folder: "/packs/blur" });
    const [pack] = packs;
    if (pack === undefined) return expect.unreachable();
    pack.callTimeout = { ms: 1500, source: "limits.call_timeout" };
    const { value } = await ask("open", { folder: "/packs/blur" });
    expect(value).toMatchObject({ call_timeout: { ms: 1500, source: "limits.call_timeout" } });
  });

  test("twice at once gives one pack", async () => {
    const { handle, packs, table } = newService();
    // Two frames of one chunk: both are handled before either is answered.
    for (const call of [1, 2]) handle(call, encode(["open", [], { folder: "/packs/blur" }]));
    await settled();
    expect([packs.length, table.status().length]).toEqual([1, 1]);
  });

  test("by a host that leaves meanwhile opens nothing", async () => {
    const { handle, packs, table } = newService();
    handle(1, encode(["open", [], { folder: "/packs/blur" }])).abandoned = true;
    await settled();
    expect([packs.length, table.status().length]).toEqual([0, 0]);
  });

  test("of more packs than a host may have is refused, until one is closed", async () => {
    const { ask } = newService(2);
    for (const name of ["a", "b"]) await ask("open", { folder: `/packs/${name}` });
    expect((await ask("open", { folder: "/packs/c" })).error?.code).toBe("limit_exceeded");
    expect((await ask("open", { folder: "/packs/a" })).error).toBeUndefined();
    await ask("close", { pack: 100 });
    expect((await ask("open", { folder: "/packs/c" })).error).toBeUndefined();
  });

  test("of a folder without a manifest fails with the manifest's error", async () => {
    const { ask, table } = newService();
    expect((await ask("open", { folder: "/nowhere" })).error?.code).toBe("manifest_invalid");
    expect(table.status().length).toBe(0);
  });
});

test("prepare makes the environment, and tells how it goes", async () => {
  const { ask, progress } = newService();
  await ask("open", { folder: "/packs/blur" });
  expect(await ask("prepare", { pack: 100 })).toEqual({
    value: { python: "/e/python", python_version: "3.12.1", fresh: true },
  });
  expect(progress.map(({ stage }) => stage)).toEqual(["install"]);
});

test("open takes a manifest and an entry with the call, and two packs in one folder by their names", async () => {
  const { ask, packs } = newService();
  const entry = { module: "a.child", settings: "{}" };
  for (const name of ["one", "two", "one"]) await ask("open", { folder: "/packs/blur", manifest: { name }, entry });
  expect(packs.map(({ manifest }) => [manifest.name, manifest.entry])).toEqual([
    ["one", entry],
    ["two", entry],
  ]);
});

test("close ends the pack, which is then no pack of this host", async () => {
  const { ask, packs } = newService();
  await ask("open", { folder: "/packs/blur" });
  expect(await ask("close", { pack: 100 })).toEqual({ value: null });
  expect(packs[0]?.closes).toBe(1);
  for (const method of ["close", "prepare"]) {
    expect((await ask(method, { pack: 100 })).error?.code).toBe("pack_not_open");
  }
});

test.each([
  ["overdue", { line: 2 }, "overdue 2"],
  ["left_line", { line: 3 }, "left 3"],
  ["retire", {}, "retire"],
])("%s is about a worker of the host's own pack, by the number of its slot", async (method, rest, said) => {
  const { ask, packs } = newService();
  await ask("open", { folder: "/packs/blur" });
  expect(await ask(method, { pack: 150, ...rest })).toEqual({ value: null });
  expect((await ask(method, { pack: 150, ...rest }, newSession(5))).error?.code).toBe("pack_not_open");
  expect((await ask(method, { pack: 999, ...rest })).error?.code).toBe("pack_not_open");
  expect(packs[0]?.said).toEqual([`150 ${said}`]);
});

test("restart is about all packs of a name, whichever host has them open", async () => {
  const { ask, packs } = newService();
  await ask("open", { folder: "/packs/blur" });
  await ask("open", { folder: "/packs/blur" }, newSession(5));
  expect(await ask("restart", { name: "blur" }, newSession(6))).toEqual({ value: { packs: 2 } });
  expect(packs.map((pack) => pack.restarts)).toEqual([1, 1]);
  const { error } = await ask("restart", { name: "smudge" });
  expect([error?.code, error?.message]).toEqual(["pack_not_open", 'no host has a pack "smudge" open']);
});

test("stats asks hosts and workers before it tells how the server is", async () => {
  const { ask, looks } = newService();
  expect(await ask("stats")).toEqual({ value: status });
  expect(looks).toEqual(["look"]);
});

test("a host says what it shares", async () => {
  const { ask, looks } = newService();
  expect(await ask("memory", { report: null })).toEqual({ value: null });
  expect((await ask("memory", { report: { segments: 1 } })).error?.code).toBe("bad_request");
  expect(looks).toEqual([{ host: 1, report: null }]);
});

test("stop has the server stop, in the time that it is given", async () => {
  const { ask, stops } = newService();
  expect([await ask("stop"), await ask("stop", { drain_ms: 5 })]).toEqual([{ value: null }, { value: null }]);
  expect(stops).toEqual([undefined, 5]);
});

test("stack has a worker print its stacks, whichever host's it is, and says where there is none", async () => {
  const { ask } = newService();
  await ask("open", { folder: "/packs/blur" });
  const stack = { value: { pack: "blur", pid: 100, stack: "stacks of 100" } };
  expect(await ask("stack", { pid: 100 }, newSession(5))).toEqual(stack);
  expect((await ask("stack", { pid: 7 })).error?.message).toContain("process id 7");
});

test("status tells how the server is", async () => {
  expect(await newService().ask("status")).toEqual({ value: status });
});

test("a server that stops begins nothing, and still hears what its hosts have to say", async () => {
  const { ask } = newService();
  await ask("open", { folder: "/packs/blur" });
  await ask("stop");
  for (const [method, keywords] of [
    ["open", { folder: "/packs/blur" }],
    ["prepare", { pack: 100 }],
    ["restart", { name: "blur" }],
  ] as const) {
    expect((await ask(method, keywords)).error?.code).toBe("server_stopping");
  }
  expect(await ask("left_line", { pack: 100, line: 1 })).toEqual({ value: null });
  expect(await ask("status")).toEqual({ value: status });
});

test("hosts and workers are told where the library is that torch's tensors are made by, if there is one", async () => {
  const { ask, libraries } = newService();
  expect(await ask("nursery")).toEqual({ value: { path: null } });
  libraries.path = "/cache/nursery.so";
  for (const peer of [newSession(1), newSession(2, workerHello)]) {
    expect(await ask("nursery", {}, peer)).toEqual({ value: { path: "/cache/nursery.so" } });
  }
});

test("a worker may not call the server, but for its memory", async () => {
  const { ask } = newService();
  const worker = newSession(2, workerHello);
  for (const method of ["status", "open", "nonsense"]) {
    expect((await ask(method, { folder: "/packs/blur" }, worker)).error?.code).toBe("unauthorized");
  }
  // It has no lane.
  expect((await ask("make_segment", { bytes: 4096 }, worker)).error?.code).toBe("bad_request");
});

test.each<[unknown, unknown, string]>([
  ["launch", {}, 'no method "launch"'],
  ["toString", {}, 'no method "toString"'],
  ["__proto__", {}, 'no method "__proto__"'],
  ["open", {}, "folder"],
  ["open", { folder: 5 }, "folder"],
  ["open", { folder: "packs/blur" }, "not an absolute path"],
  ["open", { folder: "/packs/blur", force: true }, "malformed open"],
  ["prepare", { pack: "100" }, "pack"],
  ["close", { pack: -1 }, "pack"],
  ["overdue", { pack: 100 }, "line"],
  ["left_line", { pack: 100 }, "line"],
  ["restart", {}, "name"],
  ["stop", { drain_ms: -1 }, "drain_ms"],
  ["stack", { pack: "blur" }, "malformed stack"],
  ["status", { all: true }, "malformed status"],
  [7, {}, "malformed call"],
  ["open", null, "malformed call"],
])("a call of %p with %j is refused by name", async (method, keywords, words) => {
  const { error } = await newService().ask(method, keywords);
  expect(error?.code).toBe("bad_request");
  expect(error?.message).toContain(words);
});

test.each([
  ["no value", "", "value_invalid"],
  ["two values", "0000", "value_invalid"],
  ["no call", "01", "bad_request"],
  ["an extension of msgpackr's", "d47200", "value_invalid"],
])("a body that is %s is refused", async (_, hex, code) => {
  expect((await newService().send(bytesOf(hex))).error?.code as string).toBe(code);
});
