/**
 * Which keys a manifest may have, what each may hold, and which of them Airlock doesn't carry out.
 *
 * Invariant: a key is carried out, or refused by name, or reported in a warning; none is passed over in silence. All
 * problems of a table are found at once. Pure: tables in, settings and problems out.
 */
import * as v from "valibot";
import type { LimitValues } from "../workers/limits/resource-limits.ts";
import { checkLimits } from "./limits-schema.ts";
import { describe, type ManifestProblem, toProblems, unknownKeys } from "./manifest-problems.ts";
import { requirementRefusal } from "./requirement.ts";
import { boolean, type RunningSettings, runningKeys, runningSettings } from "./running-schema.ts";
import { parseSpecifier } from "./version-specifier.ts";

/** What a table of settings asks for, keys of both kinds of file alike. */
export interface IsolationSettings {
  readonly name?: string | undefined;
  /** False where the pack asks to be left in the host; undefined where it doesn't say. */
  readonly isolate?: boolean | undefined;
  readonly dependencies: readonly string[];
  readonly requiresPython?: string | undefined;
  readonly shareTorch: boolean;
  readonly env: Record<string, string>;
  readonly running: RunningSettings;
  readonly limits: LimitValues;
}

export interface CheckedTable<Settings> {
  /** Undefined exactly if there are problems. */
  readonly settings: Settings | undefined;
  readonly problems: readonly ManifestProblem[];
  readonly warnings: readonly string[];
}

/** What pyproject.toml's `[project]` says that matters here; its other keys are other tools' business. */
export interface ProjectSettings {
  readonly name?: string | undefined;
  readonly dependencies: readonly string[];
  readonly requiresPython?: string | undefined;
}

/** Checks the keys that both files share: a whole pyisolate.yaml, or pyproject.toml's `[tool.comfy.isolation]`. */
export function checkIsolation(
  table: Record<string, unknown>,
  flavour: { readonly prefix: string; readonly askKey: "isolated" | "can_isolate" },
): CheckedTable<IsolationSettings> {
  const { prefix, askKey } = flavour;
  const known = [askKey, ...Object.keys(carriedOut), "limits", ...Object.keys(notCarriedOut)];
  const limits = checkLimits(table["limits"], `${prefix}limits`);
  const problems = [...unknownKeys(table, known, prefix), ...limits.problems];
  const warnings: string[] = [];
  for (const [key, judge] of Object.entries(notCarriedOut)) {
    const value = table[key];
    const verdict = value === undefined ? undefined : judge(value);
    if (verdict?.refusal !== undefined) problems.push({ key: prefix + key, reason: verdict.refusal });
    if (verdict?.warning !== undefined) warnings.push(`${prefix}${key} ${verdict.warning}`);
  }
  const schema = v.looseObject({ ...carriedOut, [askKey]: v.optional(boolean) });
  const parsed = v.safeParse(schema, table);
  problems.push(...toProblems(parsed.issues, prefix));
  if (!parsed.success || problems.length > 0) return { settings: undefined, problems, warnings };
  const { name, dependencies, requires_python, python, share_torch, env } = parsed.output;
  const settings: IsolationSettings = {
    name,
    isolate: parsed.output[askKey] as boolean | undefined,
    dependencies: dependencies ?? [],
    requiresPython: requires_python ?? (python === undefined ? undefined : fromBareVersion(python)),
    shareTorch: share_torch ?? false,
    env: env ?? {},
    running: runningSettings(parsed.output, asksForSandbox(table)),
    limits: limits.values,
  };
  return { settings, problems, warnings };
}

/** Checks pyproject.toml's `[project]`. */
export function checkProject(table: Record<string, unknown>): CheckedTable<ProjectSettings> {
  const parsed = v.safeParse(project, table);
  const problems = toProblems(parsed.issues, "project.");
  if (Array.isArray(table["dynamic"]) && table["dynamic"].includes("dependencies")) {
    const reason = 'names "dependencies", which Airlock cannot know without building the pack; list them in the file';
    problems.push({ key: "project.dynamic", reason });
  }
  if (!parsed.success || problems.length > 0) return { settings: undefined, problems, warnings: [] };
  const { name, dependencies, "requires-python": requiresPython } = parsed.output;
  return { settings: { name, dependencies: dependencies ?? [], requiresPython }, problems, warnings: [] };
}

const text = v.string((issue) => {
  const asText = typeof issue.input === "number" || typeof issue.input === "boolean" ? "; put it in quotes" : "";
  return `must be a string, not ${describe(issue.input)}${asText}`;
});

const packName = v.pipe(
  text,
  // A name ends up in log lines, error messages and file names' comments: one readable line.
  v.check((name) => name.trim() !== "" && name.length <= 200, "must have 1 to 200 characters"),
  v.check((name) => !/\p{Cc}/u.test(name), "must not hold control characters"),
);

const dependency = v.pipe(text, refusedWith(requirementRefusal));

const dependencies = v.array(dependency, (issue) => `must be a list of requirements, not ${describe(issue.input)}`);

const pythonSpecifier = v.pipe(
  text,
  refusedWith((value) => parseSpecifier(value).reason),
);

const pythonVersion = v.pipe(
  text,
  refusedWith((value) => parseSpecifier(fromBareVersion(value)).reason),
);

const environmentVariables = v.record(
  v.pipe(
    v.string(),
    v.check((name) => /^[^=\0]+$/.test(name), 'must be a variable\'s name, without "=" and NUL'),
  ),
  v.pipe(
    text,
    v.check((value) => !value.includes("\0"), "must not hold NUL"),
  ),
  (issue) => `must be a table of strings, not ${describe(issue.input)}`,
);

const carriedOut = {
  name: v.optional(packName),
  dependencies: v.optional(dependencies),
  share_torch: v.optional(boolean),
  env: v.optional(environmentVariables),
  requires_python: v.optional(pythonSpecifier),
  python: v.optional(pythonVersion),
  ...runningKeys,
};

const project = v.looseObject({
  name: v.optional(packName),
  dependencies: v.optional(dependencies),
  "requires-python": v.optional(pythonSpecifier),
});

interface Verdict {
  readonly refusal?: string;
  readonly warning?: string;
}

/**
 * Keys of pyisolate's ExtensionConfig that Airlock knows and does not carry out. Refused where the pack would not work
 * or would not be as safe as it asks; otherwise the author is told that the key has no effect.
 */
const notCarriedOut: Record<string, (value: unknown) => Verdict | undefined> = {
  package_manager: oneOf({
    uv: {},
    conda: {
      refusal: 'is "conda", which Airlock does not support; use "uv" and list what the pack needs in dependencies',
    },
  }),
  execution_model: oneOf({
    "host-coupled": {},
    sealed_worker: { refusal: 'is "sealed_worker", which Airlock does not support; leave the key out' },
  }),
  sandbox_mode: oneOf({
    disabled: {},
    required: { refusal: 'is "required", and Airlock has no sandbox yet; leave it out only if you trust the pack' },
  }),
  sandbox: unlessEmpty({ warning: "is not carried out yet: the pack runs without a sandbox" }),
  extra_index_urls: unlessEmpty({
    refusal: "is not supported: a pack may not choose indexes; add them to uv's own configuration",
  }),
  cuda_wheels: unlessEmpty({
    refusal: "is not supported: a pack may not choose indexes; name the wheels in dependencies",
  }),
  share_cuda_ipc: unlessEmpty({ warning: "has no effect: Airlock chooses how tensors on a GPU travel" }),
  share_torch_no_deps: unlessEmpty({ warning: "has no effect: torch is never installed beside a shared one" }),
  sealed_host_ro_paths: unlessEmpty({ warning: "has no effect without a sealed worker" }),
  conda_channels: unlessEmpty({ warning: "has no effect without conda" }),
  conda_dependencies: unlessEmpty({ warning: "has no effect without conda" }),
  conda_platforms: unlessEmpty({ warning: "has no effect without conda" }),
  module_path: unlessEmpty({ warning: "has no effect: the pack is the folder that holds this file" }),
  module: unlessEmpty({ warning: "has no effect: the pack is the folder that holds this file" }),
  apis: unlessEmpty({ warning: "has no effect: the host decides what a pack may call" }),
};

/** Whether any key would put the pack into a sandbox, if there were one. */
function asksForSandbox(table: Record<string, unknown>): boolean {
  return ["sandbox", "sandbox_mode"].some((key) => {
    const verdict = Object.hasOwn(table, key) ? notCarriedOut[key]?.(table[key]) : undefined;
    return verdict?.warning !== undefined || verdict?.refusal !== undefined;
  });
}

/** A key with a few known values, each with what is to be said of it. */
function oneOf(verdicts: Record<string, Verdict>): (value: unknown) => Verdict | undefined {
  return (value) => {
    const known = typeof value === "string" && Object.hasOwn(verdicts, value) ? verdicts[value] : undefined;
    if (known !== undefined) return known;
    const choices = Object.keys(verdicts).map((choice) => JSON.stringify(choice));
    return { refusal: `must be ${choices.join(" or ")}, not ${describe(value)}` };
  };
}

/** A key that asks for nothing while it is false, null, an empty list or an empty table. */
function unlessEmpty(verdict: Verdict): (value: unknown) => Verdict | undefined {
  return (value) => {
    const asksNothing =
      value === false || value === null || (typeof value === "object" && Object.keys(value).length === 0);
    return asksNothing ? undefined : verdict;
  };
}

/** A valibot action that reports what `refusal` returns. */
function refusedWith(refusal: (value: string) => string | undefined) {
  return v.rawCheck<string>(({ dataset, addIssue }) => {
    const message = dataset.typed ? refusal(dataset.value) : undefined;
    if (message !== undefined) addIssue({ message });
  });
}

/** `python: "3.12"` means any 3.12, as everywhere but in PEP 440. */
function fromBareVersion(value: string): string {
  const version = value.trim();
  if (!/^\d+(?:\.\d+)*$/.test(version)) return version;
  return version.split(".").length < 3 ? `==${version}.*` : `==${version}`;
}
