/**
 * A launcher in Bun that has the server in its own process, to see what goes on there:
 *
 *     bun examples/launchers/embedded.ts python main.py --use-process-isolation
 */
import { serve } from "../../src/index.ts";

await using server = await serve({
  onEvent: (event) => {
    if (event.type === "worker_started") console.error(`${event.pack}: ready after ${Math.round(event.startMs)} ms`);
    if (event.type === "worker_ended" && !event.expected) console.error(`${event.pack}: ${event.exit}`);
  },
});
// `airlock launch` joins the server that this variable names.
const child = Bun.spawn(
  ["node", `${import.meta.dir}/../../bin/airlock.mjs`, "launch", "--", ...process.argv.slice(2)],
  {
    env: { ...process.env, AIRLOCK_SOCKET: server.socketPath },
    stdio: ["inherit", "inherit", "inherit"],
  },
);
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
process.exitCode = await child.exited;
