/**
 * `airlock restart`: has a pack's workers end once they have answered, and lets a pack that is held be tried again.
 */
import * as v from "valibot";
import { validate } from "../transport/control.ts";
import { socketHelp, socketOption, withServer } from "./admin.ts";
import { type Command, readArguments, UsageError } from "./command.ts";

const answerSchema = v.object({ packs: v.number() });

export const restartCommand: Command = {
  name: "restart",
  summary:
    "Has a pack's workers end once they have answered; the next call starts fresh ones, also of a pack that is held.",
  usage: "restart PACK [--socket PATH]",
  options: socketHelp,
  examples: ["airlock restart my-pack"],
  run: async (args) => {
    const { values, positionals } = readArguments(args, { options: socketOption, allowPositionals: true });
    const [name, ...more] = positionals;
    if (name === undefined || more.length > 0) throw new UsageError("name one pack");
    const { packs } = await withServer(values.socket, "restart", async (airlock) =>
      validate(answerSchema, await airlock.callServer("restart", { name }), "answer to restart"),
    );
    console.log(`${name}: ${packs === 1 ? "restarted" : `restarted for ${packs} hosts`}`);
    return 0;
  },
};
