import { expect, test } from "bun:test";
import { formatAge, formatBytes } from "../../../src/cli/figures.ts";

test.each([
  [0, "0 B"],
  [999, "999 B"],
  [1000, "1.0 KiB"],
  [1536, "1.5 KiB"],
  [104_857_600, "100 MiB"],
  [5 * 2 ** 30, "5.0 GiB"],
  [2 ** 52, "4096 TiB"],
])("%d bytes read as %p", (bytes, text) => expect(formatBytes(bytes)).toBe(text));

test.each([
  [400, "0 s"],
  [99_000, "99 s"],
  [120_000, "2 min"],
  [7_200_000, "2.0 h"],
  [200_000_000, "2 d"],
])("%d ms read as %p", (ms, text) => expect(formatAge(ms)).toBe(text));
