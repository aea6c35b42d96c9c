/**
 * All checks and tests, one command: `npm test`. Ends with a line `N passed, N failed, N skipped`.
 *
 * `--only NAME` runs the parts whose title contains NAME.
 */
import { join } from "node:path";
import { runChecks } from "./check.ts";
import { makeEnvironment, makeTestEnvironment, makeTorchEnvironment, pyisolateEnvironment } from "./python.ts";
import { root, runTests, type StepOptions, type Tally } from "./steps.ts";

interface Part {
  readonly title: string;
  run(): Promise<Tally>;
}

const bunTest = (title: string, folder: string, env: StepOptions["env"] = {}): Part => ({
  title,
  run: () =>
    runTests(
      title,
      (report) => [
        process.execPath,
        "test",
        folder,
        "--timeout=120000",
        "--reporter=junit",
        `--reporter-outfile=${report}`,
      ],
      { env },
    ),
});

/** For tests of what becomes garbage; `collected` says why. Not where tests start processes, which would have it, too. */
const compilesInTurn = { BUN_JSC_useConcurrentJIT: "0" };

const pytest = (title: string, environment: string, paths: readonly string[]): Promise<Tally> =>
  runTests(
    title,
    (report) => [join(environment, "bin", "python"), "-m", "pytest", ...paths, "-q", "-rs", `--junitxml=${report}`],
    {
      env: { PYTHONPATH: join(root, "worker", "src"), PYTHONDONTWRITEBYTECODE: "1" },
    },
  );

const parts: readonly Part[] = [
  { title: "static checks", run: runChecks },
  bunTest("bun: unit tests", "tests/unit", compilesInTurn),
  bunTest("bun: conformance tests", "tests/conformance", compilesInTurn),
  { title: "pytest", run: async () => await pytest("pytest", await makeTestEnvironment(), ["tests/python"]) },
  torchTest("pytest with torch", ["torch", "unit/test_vectors.py"]),
  // In a process of their own: torch is led to one build of the nursery's library, here to the server's.
  torchTest("pytest with torch, hosts", ["integration/test_torch_host.py", "integration/test_torch_nursery.py"]),
  bunTest("bun: integration tests", "tests/integration"),
  { title: "a pyisolate host, on both", run: runPyisolateHost },
];

/** A host that speaks pyisolate, on pyisolate and on Airlock. */
async function runPyisolateHost(): Promise<Tally> {
  const title = "a pyisolate host, on both";
  const problem = await makeEnvironment(pyisolateEnvironment);
  if (problem === undefined) return await bunTest(title, "tests/compat").run();
  return withoutEnvironment(title, `its environment could not be made:\n${problem}`);
}

/** What a Python with torch can show and one without cannot. */
function torchTest(title: string, paths: readonly string[]): Part {
  const tests = paths.map((path) => `tests/python/${path}`);
  const run = async (): Promise<Tally> => {
    const { folder, problem } = await makeTorchEnvironment();
    if (problem === undefined) return await pytest(title, folder, tests);
    return withoutEnvironment(title, `no CPU build of torch could be installed:\n${problem}`);
  };
  return { title, run };
}

/** A part that can't be run. Where CI runs it must be; elsewhere that is a skip, with its reason. */
function withoutEnvironment(title: string, reason: string): Tally {
  console.log(`\n── ${title}: ${reason}`);
  return process.env["CI"] ? { passed: 0, failed: 1, skipped: 0 } : { passed: 0, failed: 0, skipped: 1 };
}

const only = Bun.argv[Bun.argv.indexOf("--only") + 1];
const chosen = Bun.argv.includes("--only") ? parts.filter((part) => part.title.includes(only ?? "")) : parts;
const total: Tally = { passed: 0, failed: 0, skipped: 0 };
const failures: string[] = [];
for (const part of chosen) {
  const tally = await part.run();
  if (tally.failed > 0) {
    const said = (tally.failures ?? []).map((failure) => `\n  ${failure.replaceAll("\n", "\n  ")}`);
    failures.push(`${part.title}: ${tally.failed} failed${said.join("")}`);
  }
  total.passed += tally.passed;
  total.failed += tally.failed;
  total.skipped += tally.skipped;
}
if (chosen.length === 0) failures.push(`no part's title contains ${JSON.stringify(only)}`);
console.log(failures.length > 0 ? `\n${failures.join("\n")}` : "");
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exit(failures.length === 0 ? 0 : 1);
