import { describe, expect, test } from "bun:test";
import {
  normaliseRequirement,
  requirementName,
  requirementRefusal,
  requirementVersions,
} from "../../../src/server/environments/requirement.ts";

describe("a dependency line is refused", () => {
  const refused: [why: string, line: string, reason: string][] = [
    ["as an index option", "--index-url https://example.invalid", "is an option"],
    ["as a short option after spaces", "  -r other.txt", "is an option"],
    ["as an editable install", "-e .", "is an option"],
    ["when empty", "", "is empty"],
    ["when blank", " \t", "is empty"],
    ["with a line break", "six\n--index-url x", "control character"],
    ["with a carriage return", "six\r", "control character"],
    ["with NUL", "six\0", "control character"],
    ["with a Unicode line separator", "six\u2028x", "control character"],
    // biome-ignore lint/suspicious/noTemplateCurlyInString: as pip would expand it
    ["with a variable in it", "a @ https://${TOKEN}@example.invalid/a.whl", "environment variable"],
    ["as a relative path", "./local", "is a path"],
    ["as an absolute path", "/opt/local", "is a path"],
    ["as a path without a dot", "vendor/local", "is a path"],
    ["as a path with a marker", "vendor/local; python_version > '3'", "is a path"],
    ["as a wheel beside the manifest", "local-1.0-py3-none-any.whl", "is a path"],
    ["as an archive with extras", "local-1.0.tar.gz[fast]", "is a path"],
    ["as a file URL without a name", "file:///opt/a.whl", "is a path"],
    ["as a comment", "# six", "is a comment"],
    ["when it is far too long", `six==${"1".repeat(5000)}`, "is longer"],
  ];
  test.each(refused)("%s", (_why, line, reason) => {
    expect(requirementRefusal(line)).toContain(reason);
  });
});

describe("a dependency line is left to uv", () => {
  test.each([
    "six",
    "six==1.16.0",
    " numpy >= 1.26, < 3 ",
    "a[b,c]~=1.0; python_version < '3.12'",
    "a @ git+https://example.invalid/a.git@main",
    "git+https://example.invalid/a.git",
    "not a requirement at all",
  ])("%s", (line) => {
    expect(requirementRefusal(line)).toBeUndefined();
  });
});

test.each([
  ["Torch_EMA == 0.3", "torch-ema"],
  ["ruamel.yaml[jinja2]>=1", "ruamel-yaml"],
  ["a @ https://example.invalid/x.whl", "a"],
  ["torch;python_version<'4'", "torch"],
  ["https://example.invalid/dl/My_Pack-1.0-py3-none-any.whl#sha256=00", "my-pack"],
  ["git+https://example.invalid/a.git", undefined],
])("%s is named %p", (line, name) => {
  expect(requirementName(line)).toBe(name);
});

test.each([
  ["torch", undefined],
  ["torch >= 2.4, < 3", ">= 2.4, < 3"],
  ["torch[opt](>=2)", ">=2"],
  ["torch>=2; sys_platform == 'linux'", undefined],
  ["torch @ https://example.invalid/torch.whl", undefined],
])("%s has the versions %p", (line, versions) => {
  expect(requirementVersions(line)).toBe(versions);
});

describe("two spellings of one requirement are normalised alike", () => {
  test.each([
    ["Six == 1.16.0", "six==1.16.0"],
    ["a_b.c", "A-b-C"],
    ["a [x, y] >= 1 , < 2", "a[x,y]>=1,<2"],
    ["a; python_version < '3.12' and os_name=='posix'", 'a ;python_version<"3.12" and os_name == "posix"'],
    ["a   @  git+https://example.invalid/a", "a @ git+https://example.invalid/a"],
  ])("%s", (one, other) => {
    expect(normaliseRequirement(one)).toBe(normaliseRequirement(other));
  });
});

test("a space that ends a URL stays, because without it the marker would belong to the URL", () => {
  const spaced = "a @ https://example.invalid/a.whl ; os_name == 'posix'";
  expect(normaliseRequirement(spaced)).not.toBe(normaliseRequirement(spaced.replace(" ;", ";")));
});

test("a normalised requirement is not changed by normalising it again", () => {
  const once = normaliseRequirement("A_b [x] >= 1 ; extra == 'y'");
  expect(normaliseRequirement(once)).toBe(once);
});
