/**
 * `airlock stats`: all that a running server knows of its packs and workers, for programs.
 */
import { socketHelp, socketOption, withServer } from "./admin.ts";
import { type Command, readArguments, UsageError } from "./command.ts";

export const statsCommand: Command = {
  name: "stats",
  summary: "Prints all that the server knows of its packs and workers, as JSON.",
  usage: "stats --json [--socket PATH]",
  options: ["  --json         the only form there is; airlock ps is for people", socketHelp].join("\n"),
  examples: ["airlock stats --json"],
  run: async (args) => {
    const { values } = readArguments(args, { options: { ...socketOption, json: { type: "boolean", default: false } } });
    if (!values.json) throw new UsageError("say --json; airlock ps prints a table");
    console.log(JSON.stringify(await withServer(values.socket, "stats", (airlock) => airlock.stats()), undefined, 2));
    return 0;
  },
};
