import { expect, test } from "bun:test";
import { parseRelease, parseSpecifier } from "../../../src/server/environments/version-specifier.ts";

test.each<[specifier: string, release: string, admitted: boolean]>([
  [">=3.10", "3.10.0", true],
  [">=3.10", "3.9.19", false],
  [">=3.10,<3.14", "3.13.2", true],
  [">=3.10,<3.14", "3.14.0", false],
  [" >= 3.10 , < 3.14 ", "3.14.0", false],
  ["<=3.12", "3.12.0", true],
  ["<=3.12", "3.12.1", false],
  [">3.11", "3.11.0", false],
  [">3.11", "3.11.1", true],
  ["==3.12", "3.12.0", true],
  ["==3.12", "3.12.1", false],
  ["==3.12.*", "3.12.9", true],
  ["==3.1.*", "3.12.9", false],
  ["!=3.11.3", "3.11.3", false],
  ["!=3.11.*", "3.11.3", false],
  ["!=3.11.*", "3.12.0", true],
  ["~=3.11", "3.13.0", true],
  ["~=3.11", "3.10.9", false],
  ["~=3.11", "4.0.0", false],
  ["~=3.11.2", "3.11.9", true],
  ["~=3.11.2", "3.12.0", false],
  [">=3.9.10", "3.10.0", true],
])("%s against %s: %p", (text, release, admitted) => {
  expect(parseSpecifier(text).specifier?.admits(parseRelease(release) ?? [])).toBe(admitted);
});

test.each([
  ["", "is empty"],
  [" , ", "is empty"],
  ["3.12", '"3.12"'],
  ["^3.10", '"^3.10"'],
  ["===3.12", '"===3.12"'],
  ["~=3", '"~=3"'],
  [">=3.*", '">=3.*"'],
  [">=3.10rc1", '">=3.10rc1"'],
  [">=3.10 || <2", '">=3.10||<2"'],
  ["three", '"three"'],
])("%p is refused, and the reason names what is wrong", (text, named) => {
  expect(parseSpecifier(text).reason).toContain(named);
});

test("a version's release is what it begins with", () => {
  expect(parseRelease("2.13.0+cu130")).toEqual([2, 13, 0]);
  expect(parseRelease("3.13.0rc2")).toEqual([3, 13, 0]);
  expect(parseRelease("unknown")).toBeUndefined();
});
