/**
 * `airlock stack`: where the workers of a pack are at the moment, as Python stacks of all their threads.
 */
import { type Airlock, connect } from "../client/client.ts";
import { type Status, stackResultSchema, validate } from "../transport/control.ts";
import { toAirlockError } from "../transport/errors.ts";
import { type Command, readArguments, UsageError } from "./command.ts";

export const stackCommand: Command = {
  name: "stack",
  summary: "Prints the Python stacks of a pack's workers, also while native code holds the interpreter's lock.",
  usage: "stack PACK [--socket PATH]",
  options: [
    "  PACK            a pack's name or folder",
    "  --socket PATH   the server's Unix socket (AIRLOCK_SOCKET, else the user's own)",
  ].join("\n"),
  examples: ["airlock stack my-pack"],
  run: runStack,
};

type PackStatus = Status["packs"][number];

async function runStack(args: readonly string[]): Promise<number> {
  const { values, positionals } = readArguments(args, {
    options: { socket: { type: "string" } },
    allowPositionals: true,
  });
  const [pack, ...more] = positionals;
  if (pack === undefined || more.length > 0) throw new UsageError("name one pack");
  const airlock = await connect({ name: "airlock stack", ...(values.socket !== undefined && values) });
  try {
    const { packs } = await airlock.status();
    const matching = packs.filter(({ name, folder }) => name === pack || folder === pack);
    return await printStacks(airlock, pack, packs, matching);
  } finally {
    await airlock.close();
  }
}

async function printStacks(
  airlock: Airlock,
  name: string,
  packs: readonly PackStatus[],
  matching: readonly PackStatus[],
): Promise<number> {
  const running = matching.flatMap(({ folder, host, workers }) =>
    workers.flatMap(({ pid }) => (pid === 0 ? [] : [{ folder, host, pid }])),
  );
  if (running.length === 0) {
    const known = [...new Set(packs.map((each) => each.name))].join(", ");
    const said =
      matching.length > 0
        ? `no worker of the pack ${name} is running: a call starts one`
        : `no host has a pack ${JSON.stringify(name)} open; open are: ${known || "none"}`;
    console.error(`airlock stack: ${said}`);
    return 1;
  }
  let failures = 0;
  for (const { pid, folder, host } of running) {
    // Each host has workers of its own, and two folders may hold packs of one name.
    console.log(`==> ${name}, worker ${pid} of ${host.name} (pid ${host.pid}), in ${folder}`);
    try {
      const { stack } = validate(stackResultSchema, await airlock.callServer("stack", { pid }), "answer to stack");
      console.log(stack.trimEnd());
    } catch (error) {
      failures += 1;
      console.error(`airlock stack: ${toAirlockError(error).describe()}`);
    }
  }
  return failures === 0 ? 0 : 1;
}
