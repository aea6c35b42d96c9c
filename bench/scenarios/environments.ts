/**
 * How long a pack's environment takes: made from nothing, and found again. What is downloaded is in uv's cache by then, as
 * a network is no measure; the first of all rounds may fetch it, and is not counted.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, serve } from "../../src/index.ts";
import type { Figure } from "../results.ts";
import type { Scenario, Taken } from "../scenario.ts";

const manifest = `[project]
name = "bench-environment"
version = "1.0"
dependencies = ["numpy==2.2.6", "pillow==12.0.0"]

[tool.comfy.isolation]
can_isolate = true
`;

const pack = `class Nothing:
    RETURN_TYPES = ()
    FUNCTION = "run"
    @classmethod
    def INPUT_TYPES(cls): return {"required": {}}
    def run(self): return ()
NODE_CLASS_MAPPINGS = {"nothing": Nothing}
`;

export const environments: Scenario = {
  name: "environments",
  group: "life",
  describe:
    "a pack's environment with numpy and pillow: made (downloads cached), found again; and the first answer then",
  rounds: 3,
  bases: [],
  plan: async () => {
    const start = () => measure();
    return { turns: [{ contender: "airlock", condition: "free", start }], notes: [] };
  },
};

async function measure(): Promise<Taken> {
  const folder = mkdtempSync(join(tmpdir(), "airlock-bench-"));
  try {
    const packFolder = join(folder, "pack");
    mkdirSync(packFolder);
    writeFileSync(join(packFolder, "pyproject.toml"), manifest);
    writeFileSync(join(packFolder, "__init__.py"), pack);
    // What was fetched before this is in uv's cache.
    await prepared(folder, packFolder, "warm-up");
    const made = await prepared(folder, packFolder, "cache");
    const found = await prepared(folder, packFolder, "cache");
    const figure = (of: string, value: number): Figure => ({ of, statistic: "once", unit: "ms", value });
    return {
      figures: [
        figure("made", made.preparedMs),
        figure("made, first answer", made.answeredMs),
        figure("found again", found.preparedMs),
        figure("found again, first answer", found.answeredMs),
      ],
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A server with a cache of environments of its own; milliseconds from opening a pack there. */
async function prepared(folder: string, packFolder: string, cache: string) {
  await using server = await serve({
    ...{ socket: join(folder, "s.sock"), logs: folder, environments: join(folder, cache) },
    limits: { drainMsMax: 0 },
  });
  await using airlock = await connect({ socket: server.socketPath, name: "bench" });
  const startMs = performance.now();
  const opened = await airlock.open(packFolder);
  await opened.prepare();
  const preparedMs = performance.now() - startMs;
  await opened.call("nothing", {});
  return { preparedMs, answeredMs: performance.now() - startMs };
}
