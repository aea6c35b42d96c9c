/**
 * What is wrong with a table that a person wrote, in words that name the key. Pure.
 */
import type * as v from "valibot";
import { nearest } from "./nearest.ts";

/** One thing that is wrong with a manifest. */
export interface ManifestProblem {
  /** The key as the file's author would write it, e.g. `tool.comfy.isolation.dependencies[2]`. */
  readonly key: string;
  /** The end of a sentence that starts with the key. */
  readonly reason: string;
}

/** The keys that nobody knows, each with the one that was probably meant. */
export function unknownKeys(
  table: Record<string, unknown>,
  known: readonly string[],
  prefix: string,
): ManifestProblem[] {
  return Object.keys(table)
    .filter((key) => !known.includes(key))
    .map((key) => {
      const meant = nearest(key, known);
      const suggestion = meant === undefined ? `the keys are ${known.join(", ")}` : `did you mean ${prefix}${meant}?`;
      return { key: prefix + key, reason: `is not a known key; ${suggestion}` };
    });
}

/** What valibot found, each under its key. */
export function toProblems(issues: readonly v.BaseIssue<unknown>[] | undefined, prefix: string): ManifestProblem[] {
  return (issues ?? []).map((issue) => {
    const path = (issue.path ?? []).map(({ key }) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`));
    return { key: prefix + path.join("").slice(1), reason: issue.message };
  });
}

export function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** A value as the end of "must be …, not". */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return "empty";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a table";
  const shown = JSON.stringify(value) ?? String(value);
  return shown.length > 60 ? `${shown.slice(0, 57)}…` : shown;
}
