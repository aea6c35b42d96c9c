/** The house rules that no linter knows, over the files that the repository tracks. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dir, "..", "..");

function trackedFiles(): string[] {
  const listed = Bun.spawnSync(["git", "ls-files", "-z"], { cwd: root });
  if (!listed.success) throw new Error(`git ls-files failed: ${listed.stderr.toString()}`);
  // A file may be deleted and its deletion not be committed yet.
  return listed.stdout
    .toString()
    .split("\0")
    .filter((path) => path !== "" && existsSync(join(root, path)));
}

const files = trackedFiles();
const textOf = (path: string) => readFileSync(join(root, path), "utf8");
const under = (...folders: string[]) => files.filter((path) => folders.some((folder) => path.startsWith(folder)));
const source = under("src/", "worker/src/", "packs/").filter((path) => /\.(ts|py)$/.test(path));

/** The source without comments, so that a rule may be named where it is kept. */
function codeOf(path: string): string {
  return textOf(path)
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/(^|\s)\/\/.*$/gm, "$1");
}

test("there are files to look at", () => {
  expect(source.length).toBeGreaterThan(50);
});

test.each(source.map((path) => [path]))("%s opens by saying what it owns", (path) => {
  const [opening] = textOf(path)
    .replace(/^#!.*\n/, "")
    .trimStart()
    .split("\n", 1);
  const expected = path.endsWith(".ts") ? /^\/\*\*/ : /^r?"""/;
  expect(opening).toMatch(expected);
});

test.each(under("src/").map((path) => [path]))("%s holds one idea: at most 400 lines", (path) => {
  expect(textOf(path).split("\n").length - 1).toBeLessThanOrEqual(400);
});

describe("in src", () => {
  const typescript = under("src/").filter((path) => path.endsWith(".ts"));

  test.each<[string, RegExp, (path: string) => boolean]>([
    [
      "native code is bound",
      /["']bun:ffi["']/,
      (path) => path === "src/transport/libc.ts" || path.startsWith("src/cuda/"),
    ],
    ["the command line is read", /\bprocess\.argv\b|\bBun\.argv\b/, (path) => path.startsWith("src/cli/")],
    [
      "time is told",
      /\b(?:setTimeout|setInterval|performance\.now|Bun\.sleep|Date\.now)\b/,
      (path) => path === "src/transport/clock.ts",
    ],
    ["msgpack is known", /["']msgpackr["']/, (path) => path === "src/transport/codec.ts"],
  ])("%s only where it belongs", (_, pattern, belongs) => {
    const offenders = typescript.filter((path) => !belongs(path) && pattern.test(codeOf(path)));
    expect(offenders).toEqual([]);
  });
});

test("lock files name packages and no addresses, so that any index will do", () => {
  const locks = files.filter((path) => path === "bun.lock" || /^(requirements|bench\/contenders)\/.*\.txt$/.test(path));
  expect(locks).toContain("bun.lock");
  const lines = locks.flatMap((path) =>
    textOf(path)
      .split("\n")
      .map((line) => `${path}: ${line}`),
  );
  expect(lines.filter((line) => /https?:\/\//.test(line))).toEqual([]);
});

describe("a test", () => {
  const tests = under("tests/").filter((path) => path !== "tests/unit/house-rules.test.ts");

  test("is never the only one to run", () => {
    const pattern = /\b(?:test|it|describe)\.only\b/;
    expect(tests.filter((path) => path.endsWith(".ts") && pattern.test(textOf(path)))).toEqual([]);
  });

  test("in TypeScript is skipped only with its reason in a comment beside it", () => {
    const skip = /\b(?:test|it|describe)\.(?:skip|skipIf|todo|todoIf|if)\b/;
    const offenders = tests
      .filter((path) => path.endsWith(".ts"))
      .flatMap((path) => {
        const lines = textOf(path).split("\n");
        const isBare = (index: number) => !/\/\/|\*\//.test(`${lines[index]}${lines[index - 1] ?? ""}`);
        return lines.flatMap((line, index) => (skip.test(line) && isBare(index) ? [`${path}:${index + 1}`] : []));
      });
    expect(offenders).toEqual([]);
  });

  test("in Python is skipped only with its reason", () => {
    const skip =
      /\bpytest\.(?:mark\.(?:skip|skipif|xfail)|importorskip|skip|xfail)\b(?<call>[^\n]*(?:\n[ \t)][^\n]*){0,4})/g;
    const offenders = tests
      .filter((path) => path.endsWith(".py"))
      .flatMap((path) => {
        const bare = [...textOf(path).matchAll(skip)].filter(
          (match) =>
            !/\breason=|^\(\s*f?"/.test(match.groups?.["call"] ?? "") || /importorskip\("[^"]*"\)/.test(match[0]),
        );
        return bare.map((match) => `${path}: ${match[0].split("\n", 1)[0]}`);
      });
    expect(offenders).toEqual([]);
  });
});
