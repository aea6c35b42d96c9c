/**
 * `airlock stop`: has a running server finish what it has, and end.
 */
import { AirlockError } from "../transport/errors.ts";
import { socketHelp, socketOption, withServer } from "./admin.ts";
import { type Command, readArguments, UsageError } from "./command.ts";

export const stopCommand: Command = {
  name: "stop",
  summary: "Stops the server: calls under way finish, new ones are refused, then all workers end.",
  usage: "stop [--within SECONDS] [--socket PATH]",
  options: ["  --within S     how long calls under way get; 10 by default", socketHelp].join("\n"),
  examples: ["airlock stop", "airlock stop --within 0"],
  run: async (args) => {
    const { values } = readArguments(args, { options: { ...socketOption, within: { type: "string" } } });
    const seconds = values.within === undefined ? undefined : Number(values.within);
    if (seconds !== undefined && !(seconds >= 0 && seconds <= 86_400)) {
      throw new UsageError(`--within takes a number of seconds, not ${JSON.stringify(values.within)}`);
    }
    await withServer(values.socket, "stop", async (airlock) => {
      try {
        await airlock.callServer("stop", seconds === undefined ? {} : { drain_ms: Math.round(seconds * 1_000) });
      } catch (error) {
        // It may be gone before it has said so.
        if (!(error instanceof AirlockError && ["disconnected", "server_stopping"].includes(error.code))) throw error;
      }
      await airlock.closed;
    });
    return 0;
  },
};
