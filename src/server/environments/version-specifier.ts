/**
 * The part of PEP 440 that `requires-python` and plain pins use: release numbers, compared by `>= > <= < == != ~=`,
 * with `.*` after `==` and `!=`, joined by commas.
 *
 * It knows no pre-, post-, development or local releases: whoever writes one gets a reason, not a guess. Pure.
 */

/** A release as its numbers: `3.12` and `3.12.0` are equal. */
export type Release = readonly number[];

export interface VersionSpecifier {
  /** The clauses without spaces, as uv takes them. */
  readonly text: string;
  admits(release: Release): boolean;
}

export type ParsedSpecifier =
  | { readonly specifier: VersionSpecifier; readonly reason?: never }
  | { readonly specifier?: never; readonly reason: string };

type Clause = (release: Release) => boolean;

/** Parses `>=3.10,<3.14`; the reason, where there is one, ends a sentence that starts with the key. */
export function parseSpecifier(text: string): ParsedSpecifier {
  const parts = text
    .split(",")
    .map((part) => part.replace(/\s+/g, ""))
    .filter((part) => part !== "");
  if (parts.length === 0) return { reason: "is empty; leave the key out if any version will do" };
  const clauses: Clause[] = [];
  for (const part of parts) {
    const clause = parseClause(part);
    if (clause === undefined) {
      return {
        reason: `holds ${JSON.stringify(part)}, which is no version clause such as ">=3.10", "==3.12.*" or "~=3.11"`,
      };
    }
    clauses.push(clause);
  }
  const admits = (release: Release) => clauses.every((clause) => clause(release));
  return { specifier: { text: parts.join(","), admits } };
}

/** The release numbers that a version begins with: `3.13.0rc2+local` is 3.13.0; undefined if it begins with none. */
export function parseRelease(version: string): Release | undefined {
  return /^\d+(?:\.\d+)*/.exec(version.trim())?.[0].split(".").map(Number);
}

function parseClause(part: string): Clause | undefined {
  const found = /^(~=|==|!=|>=|<=|>|<)(\d+(?:\.\d+)*)(\.\*)?$/.exec(part);
  if (found === null) return undefined;
  const [, operator, digits = "", wildcard] = found;
  const version = digits.split(".").map(Number);
  if (wildcard !== undefined) {
    if (operator === "==") return (release) => hasPrefix(release, version);
    if (operator === "!=") return (release) => !hasPrefix(release, version);
    return undefined;
  }
  switch (operator) {
    case ">=":
      return (release) => compare(release, version) >= 0;
    case ">":
      return (release) => compare(release, version) > 0;
    case "<=":
      return (release) => compare(release, version) <= 0;
    case "<":
      return (release) => compare(release, version) < 0;
    case "==":
      return (release) => compare(release, version) === 0;
    case "!=":
      return (release) => compare(release, version) !== 0;
    default:
      // `~=3.11.2` is `>=3.11.2, ==3.11.*`; with a single number there is nothing to hold fixed.
      if (version.length < 2) return undefined;
      return (release) => compare(release, version) >= 0 && hasPrefix(release, version.slice(0, -1));
  }
}

function compare(a: Release, b: Release): number {
  for (let index = 0; index < Math.max(a.length, b.length); index++) {
    const difference = (a[index] ?? 0) - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

function hasPrefix(release: Release, prefix: Release): boolean {
  return prefix.every((part, index) => (release[index] ?? 0) === part);
}
