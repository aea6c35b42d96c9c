/**
 * The `airlock` command: finds the subcommand, runs it, and turns errors into messages and exit codes. The only reader
 * of argv.
 *
 * Exit codes: 0 done · 1 it failed · 2 the command line or a file on it is wrong · 130 interrupted.
 */
import { AirlockError } from "../transport/errors.ts";
import { version } from "../version.ts";
import { type Command, UsageError } from "./command.ts";
import { launchCommand } from "./launch.ts";
import { logsCommand } from "./logs.ts";
import { psCommand } from "./ps.ts";
import { restartCommand } from "./restart.ts";
import { runCommand } from "./run.ts";
import { serveCommand } from "./serve.ts";
import { stackCommand } from "./stack.ts";
import { statsCommand } from "./stats.ts";
import { stopCommand } from "./stop.ts";

const commands: readonly Command[] = [
  serveCommand,
  launchCommand,
  runCommand,
  psCommand,
  statsCommand,
  logsCommand,
  stackCommand,
  restartCommand,
  stopCommand,
];

/** Errors of input, as opposed to errors of what was run on it. */
const inputCodes: ReadonlySet<string> = new Set(["bad_request", "manifest_invalid", "workflow_invalid"]);

function help(): string {
  const width = Math.max(...commands.map((command) => command.name.length));
  const list = commands.map((command) => `  ${command.name.padEnd(width)}  ${command.summary}`);
  return `airlock ${version}: every ComfyUI node pack in a process and an environment of its own

Usage: airlock COMMAND [OPTIONS]

${list.join("\n")}

Examples:
${commands
  .flatMap((command) => command.examples)
  .map((example) => `  ${example}`)
  .join("\n")}

airlock COMMAND --help tells more of each. AIRLOCK_SOCKET, AIRLOCK_PYTHON and AIRLOCK_UV override what is found.
`;
}

function commandHelp(command: Command): string {
  const examples = command.examples.map((example) => `  ${example}`).join("\n");
  return `Usage: airlock ${command.usage}\n\n${command.summary}\n\n${command.options}\n\nExamples:\n${examples}\n`;
}

async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === "--version" || name === "-V") {
    console.log(version);
    return 0;
  }
  if (name === undefined || name === "--help" || name === "-h" || name === "help") {
    const asked = commands.find((command) => command.name === rest[0]);
    console.log(asked === undefined ? help() : commandHelp(asked));
    return name === undefined ? 2 : 0;
  }
  const command = commands.find((each) => each.name === name);
  if (command === undefined) {
    console.error(`airlock: there is no command ${JSON.stringify(name)}\n\n${help()}`);
    return 2;
  }
  // What follows "--" is another program's.
  const own = rest.includes("--") ? rest.slice(0, rest.indexOf("--")) : rest;
  if (own.includes("--help") || own.includes("-h")) {
    console.log(commandHelp(command));
    return 0;
  }
  try {
    return await command.run(rest);
  } catch (error) {
    return report(command, error);
  }
}

function report(command: Command, error: unknown): number {
  if (error instanceof UsageError) {
    console.error(`airlock ${command.name}: ${error.message}\n\n${commandHelp(command)}`);
    return 2;
  }
  if (isSystemError(error)) {
    console.error(`airlock ${command.name}: ${error.message}`);
    return 1;
  }
  if (!(error instanceof AirlockError)) throw error;
  console.error(`airlock ${command.name}: ${error.describe()}`);
  if (error.code === "cancelled") return 130;
  return inputCodes.has(error.code) ? 2 : 1;
}

/** What the operating system refused, such as a folder that cannot be made: its message says what and where. */
function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && "syscall" in error && "code" in error;
}

// Nothing that a finished command left open should keep the process; it has stopped its server by now.
process.exit(await main(process.argv.slice(2)));
