/**
 * A launcher in Bun: a server in this process, a client in the same, one node called.
 *
 *     bun examples/launcher.ts
 *
 * A launcher of ComfyUI starts `python main.py` with AIRLOCK_SOCKET set to `server.socketPath` where this one calls.
 */
import { join } from "node:path";
import { connect, NdArray, serve } from "comfy-airlock";

await using server = await serve({ onEvent: (event) => console.error(event.type) });
await using airlock = await connect({ socket: server.socketPath });

const inkwork = await airlock.open(join(import.meta.dir, "packs", "inkwork"));
await inkwork.prepare({ onProgress: ({ message }) => console.error(message) });

const grey = NdArray.float32([1, 64, 64, 3], new Float32Array(64 * 64 * 3).fill(0.5));
const deadline = AbortSignal.timeout(60_000);
const [painted] = (await inkwork.call(
  "FlatPaint",
  { image: grey, radius: 4, colour_range: 0.2, saturation: 1.2 },
  { signal: deadline },
)) as [NdArray];
console.log(`an image of ${painted.shape.join(" × ")}, painted in another process`);
