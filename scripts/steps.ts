/**
 * Runs tools as steps and counts what they report. Used by check.ts and test.ts.
 */
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";

export const root = dirname(import.meta.dir);

/** What a step came to. */
export interface Tally {
  passed: number;
  failed: number;
  skipped: number;
  /** Names of what failed, each with what it said, as far as known: whoever sees the end of a long log sees them there. */
  failures?: readonly string[];
}

export interface StepOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** Runs a tool with its output shown; true where it succeeded. */
export async function runStep(title: string, command: readonly string[], options: StepOptions = {}): Promise<boolean> {
  console.log(`\n── ${title}`);
  const env = { ...process.env, ...options.env };
  const child = Bun.spawn([...command], { cwd: root, env, stdio: ["ignore", "inherit", "inherit"] });
  return (await child.exited) === 0;
}

/**
 * Runs a test runner that writes a JUnit report, and counts its tests.
 *
 * A runner that fails without a failed test (a file that doesn't load, no tests at all) counts as one failure.
 */
export async function runTests(
  title: string,
  command: (report: string) => readonly string[],
  options: StepOptions = {},
): Promise<Tally> {
  const report = join(root, ".airlock", "reports", `${title.replace(/\W+/g, "-")}.xml`);
  mkdirSync(dirname(report), { recursive: true });
  await Bun.write(report, "");
  const succeeded = await runStep(title, command(report), options);
  const tally = readJUnit(await Bun.file(report).text());
  if (!succeeded && tally.failed === 0) tally.failed = 1;
  if (succeeded && tally.passed + tally.skipped === 0) tally.failed = 1;
  return tally;
}

/** Counts test cases by their outcome. Bun and pytest agree on no more of the format than this. */
function readJUnit(xml: string): Tally {
  const count = (pattern: RegExp): number => [...xml.matchAll(pattern)].length;
  const cases = count(/<testcase\b/g);
  const failures = [...xml.matchAll(failedCase)].map(([, testcase = "", failure = ""]) => {
    const name = ["file", "classname", "name"].map((each) => attribute(testcase, each)).join(" ");
    const said = attribute(failure, "message").trim().split("\n").slice(0, saidLinesMax);
    return [name.trim(), ...said.map((line) => `  ${line}`)].join("\n");
  });
  const failed = count(/<(?:failure|error)\b/g);
  const skipped = count(/<skipped\b/g);
  return { passed: Math.max(0, cases - failed - skipped), failed, skipped, failures };
}

/** The attributes of a case that failed, and those of its failure. */
const failedCase = /<testcase\b((?:[^>"]|"[^"]*")*)>\s*<(?:failure|error)\b((?:[^>"]|"[^"]*")*)>/g;
/** Of what a failure says, at the end of a run; all of it stands further up. */
const saidLinesMax = 12;

const entities: Readonly<Record<string, string>> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'", "#10": "\n" };

function attribute(attributes: string, name: string): string {
  const value = new RegExp(`\\b${name}="([^"]*)"`).exec(attributes)?.[1] ?? "";
  return value.replaceAll(/&(#?\w+);/g, (escaped, entity: string) => entities[entity] ?? escaped);
}
