/**
 * What Airlock itself says about one dependency line, before uv sees it.
 *
 * Invariant: a line that passes here is one argument of uv, never an option, never two lines, and means the same in
 * every working directory. Whether it is a valid PEP 508 requirement is for uv to say: there is one resolver. Pure.
 */

/** Longest dependency line accepted, in characters; bounds what one argument of uv can weigh. */
const requirementCharsMax = 4096;

/** Why `line` cannot be a dependency, as the end of a sentence that starts with its key; undefined if it may pass. */
export function requirementRefusal(line: string): string | undefined {
  const text = line.trim();
  if (text === "") return "is empty; remove it";
  if (line.length > requirementCharsMax) return `is longer than ${requirementCharsMax} characters`;
  if (hasControlCharacter(line))
    return "holds a line break or another control character; write one requirement an entry";
  if (text.startsWith("-")) {
    return `is an option of pip (${quote(text)}), not a requirement; a pack may not change how or where from it is installed`;
  }
  if (text.startsWith("#")) return `is a comment (${quote(text)}), not a requirement`;
  if (text.includes("${"))
    return `expands an environment variable (${quote(text)}), which would tell the index secrets`;
  if (isPath(text)) {
    return `is a path (${quote(text)}); name what it holds: "name @ file:///absolute/path"`;
  }
  return undefined;
}

/**
 * The canonical name (PEP 503: lower case, runs of `-_.` are one `-`) of what the line installs. A bare URL is named by
 * its wheel's file name; undefined where only a build would tell.
 */
export function requirementName(line: string): string | undefined {
  const text = line.trim();
  const url = /^[A-Za-z][A-Za-z0-9+.-]*:\/\//.test(text);
  const found = url
    ? /\/([A-Za-z0-9](?:[A-Za-z0-9._]*[A-Za-z0-9])?)-[^/]*\.whl(?:[?#].*)?$/.exec(text)
    : /^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)/.exec(text);
  return found?.[1] === undefined ? undefined : canonicalName(found[1]);
}

/** A distribution's name in the one spelling that compares equal (PEP 503). */
function canonicalName(name: string): string {
  return name.toLowerCase().replace(/[-_.]+/g, "-");
}

/** The version clauses (`>=2.4,<3`) of a plain requirement; undefined if it has a marker, a URL, or none. */
export function requirementVersions(line: string): string | undefined {
  const found = /^[A-Za-z0-9._-]+\s*(?:\[[^\]]*\])?\s*\(?\s*([<>=!~][^;@)]*?)\s*\)?\s*$/.exec(line.trim());
  return found?.[1];
}

/**
 * The line in the spelling that the fingerprint uses: canonical name, one kind of quote, no optional spaces. Where a
 * space may matter (URLs) it stays: two keys for one meaning cost a rebuild, one key for two meanings would be wrong.
 */
export function normaliseRequirement(line: string): string {
  const text = line.trim().replace(/\s+/g, " ");
  const written = /^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?/.exec(text)?.[0];
  if (written === undefined || text.includes("://")) return text;
  const rest = text
    .slice(written.length)
    .replaceAll("'", '"')
    .replace(/\s*([<>=!~]=?=?|[,;()[\]])\s*/g, "$1");
  return canonicalName(written) + rest.trimEnd().replace(/^ (?=@)/, "");
}

/** Whether uv would take the line for a file or folder of the pack's, which is another in every working directory. */
function isPath(text: string): boolean {
  if (/^(?:[./~]|file:)/.test(text)) return true;
  if (/^[A-Za-z][A-Za-z0-9+.-]*:\/\//.test(text)) return false;
  // What stands before "@ URL", a marker or extras; a name has no slash and is no archive.
  const first = /^[^\s@;[]*/.exec(text)?.[0] ?? "";
  return first.includes("/") || /\.(?:whl|zip|tar\.[a-z0-9]+|tgz|egg)$/i.test(first);
}

function hasControlCharacter(text: string): boolean {
  return [...text].some((character) => {
    const code = character.codePointAt(0) ?? 0;
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code === 0x2028 || code === 0x2029;
  });
}

function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}…` : text);
}
