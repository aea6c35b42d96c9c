/** A server of its own that makes one pack's environment, and prints whether it had to. For tests with several at once. */
import { join } from "node:path";
import { connect, serve } from "../../src/index.ts";

const [folder = "", pack = ""] = Bun.argv.slice(2);
await using server = await serve({
  socket: join(folder, `${process.pid}.sock`),
  environments: join(folder, "environments"),
  libraries: join(folder, "libraries"),
  logs: join(folder, "logs"),
});
await using airlock = await connect({ socket: server.socketPath });
const { fresh, python } = await (await airlock.open(pack)).prepare();
process.stdout.write(JSON.stringify({ fresh, python }));
