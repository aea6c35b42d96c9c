/** What the command line of `bun run bench` asks for. Pure, but for what it is called with. */
import { parseArgs } from "node:util";

export const usage = `bun run bench [SCENARIO …] [options]

  --list                 what there is
  --only NAME            the scenarios whose name contains NAME
  --contender NAME       the contenders whose name contains NAME; may be given again
  --rounds N             fresh starts of every contender (each scenario has a default)
  --seed N               repeats the order of a run that printed it
  --all                  prints every figure, and not those alone that tell most
  --json FILE            leaves every sample there
  --html FILE            leaves a page with pictures there
  --svg FILE             leaves the headline picture there
  --markdown FILE        leaves a page of tables there
  --from FILE            measures nothing, and takes what --json has left
  --compare OLD NEW      what got slower from one --json to the other; exit code 1 where something did
  --smoke                a little of everything: whether it works, not how fast
  --profiles FOLDER      leaves CPU profiles of the servers there
  --rivals               who else may take part, and whether they are there
  --install-rivals       makes the environments of the rivals first`;

/** What is wrong with the command line. */
export class UsageError extends Error {}

/** @throws UsageError, or parseArgs' own TypeError, for what it doesn't know. */
export function parseCommandLine(args: readonly string[]) {
  const { values, positionals } = parseArgs({
    args: [...args],
    options: {
      list: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
      only: { type: "string", default: "" },
      contender: { type: "string", multiple: true, default: [] },
      rounds: { type: "string" },
      seed: { type: "string" },
      all: { type: "boolean", default: false },
      json: { type: "string" },
      html: { type: "string" },
      svg: { type: "string" },
      markdown: { type: "string" },
      from: { type: "string" },
      compare: { type: "boolean", default: false },
      profiles: { type: "string" },
      smoke: { type: "boolean", default: false },
      rivals: { type: "boolean", default: false },
      "install-rivals": { type: "boolean", default: false },
    },
    allowPositionals: true,
  });
  return {
    ...values,
    names: positionals,
    rounds: wholeNumber("--rounds", values.rounds),
    seed: wholeNumber("--seed", values.seed),
  };
}

export type CommandLine = ReturnType<typeof parseCommandLine>;

function wholeNumber(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new UsageError(`${option} takes a whole number from 1, not ${text}`);
  return value;
}
