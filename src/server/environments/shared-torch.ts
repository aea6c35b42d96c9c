/**
 * What a pack with `share_torch: true` uses of its host: torch, what was compiled against it, and what it needs.
 *
 * Invariant: nothing that is shared is installed a second time, and what is installed beside it is in the versions that
 * the shared torch allows. How a process comes to import the shared modules is the worker's business.
 */
import { join } from "node:path";
import * as v from "valibot";
import { type Clock, systemClock } from "../../transport/clock.ts";
import { AirlockError } from "../../transport/errors.ts";
import { ask } from "./python-answer.ts";
import { requirementName, requirementVersions } from "./requirement.ts";
import type { Variables } from "./uv.ts";
import { parseRelease, parseSpecifier } from "./version-specifier.ts";

const torchReport = v.object({
  version: v.string(),
  sitePackages: v.string(),
  locations: v.array(v.string()),
  modules: v.array(v.string()),
  distributions: v.array(v.string()),
  requirements: v.array(v.string()),
});

const report = v.object({
  python: v.string(),
  executable: v.string(),
  folders: v.array(v.tuple([v.string(), v.nullable(v.string())])),
  torch: v.nullable(torchReport),
});

/** A folder that a Python looks for packages in, and what changes when something is installed there: its mtime in ns. */
export type PackageFolder = readonly [path: string, state: string | null];

export interface ProbeOptions {
  readonly variables: Variables;
  readonly signal?: AbortSignal | undefined;
  readonly clock?: Clock | undefined;
}

/** The host's torch. */
export interface SharedTorch {
  /** Version of the torch distribution, e.g. `2.13.0+cu130`. */
  readonly version: string;
  /** Minor version of the host's Python, e.g. `3.11`: compiled modules work with no other. */
  readonly python: string;
  /** The host's interpreter, behind all links and wrappers. */
  readonly executable: string;
  /** Changes with what is installed in the host's environment. */
  readonly state: string;
  /** The folder that holds torch. */
  readonly sitePackages: string;
  /** Every folder that holds something shared, torch's first; more than one where a system Python splits them. */
  readonly locations: readonly string[];
  /** Top-level import names of torch, torchvision and torchaudio as far as installed, and of all that they require. */
  readonly modules: readonly string[];
  /** Canonical names of the distributions that these modules belong to. */
  readonly distributions: readonly string[];
  /** What those distributions require, as PEP 508 lines: bounds for what is installed beside them. */
  readonly requirements: readonly string[];
}

/** Never installed where torch is shared: torch, and what is compiled against one exact version of it. */
const neverInstalled = ["torch", "torchvision", "torchaudio"];

const probeFile = join(import.meta.dir, "torch_probe.py");

/**
 * Finds out which torch a host has, without importing it, and what that may change with.
 *
 * @throws AirlockError `environment_failed` if the Python doesn't run or has no torch
 */
export async function probeSharedTorch(
  hostPython: string,
  options: ProbeOptions,
): Promise<{ readonly torch: SharedTorch; readonly folders: readonly PackageFolder[] }> {
  const { variables, signal, clock = systemClock } = options;
  const command = [hostPython, "-I", probeFile];
  const { answer, result } = await ask(command, report, { env: variables, signal, clock });
  if (answer === undefined) {
    const message = `the host's Python ${hostPython} does not say which torch it has, which is to be shared (${result.ending})`;
    throw new AirlockError("environment_failed", message, { log: result.stderr.trim() });
  }
  const { python, executable, torch, folders } = answer;
  const state = Bun.hash(JSON.stringify(folders)).toString(36);
  if (torch !== null) return { torch: { ...torch, python, executable, state }, folders };
  throw new AirlockError("environment_failed", `the host's Python ${hostPython} has no torch to share (share_torch)`, {
    hint: "Install torch in the host's environment, or leave share_torch out of the pack's manifest.",
  });
}

/** The pack's dependencies, less those that the host provides, and what uv has to be told so that none comes back. */
export interface TorchlessInstall {
  readonly dependencies: readonly string[];
  /** Lines of a file for `--overrides`: whoever requires these gets none. */
  readonly overrides: readonly string[];
  /** Lines of a file for `--constraints`: what is installed must suit the shared torch. */
  readonly constraints: readonly string[];
}

/**
 * Takes out of `dependencies` what the host provides. Pure.
 *
 * @throws AirlockError `environment_failed` if the pack asks for a version that the host doesn't have, or for a
 *   companion of torch that it lacks
 */
export function withoutTorch(pack: string, dependencies: readonly string[], torch: SharedTorch): TorchlessInstall {
  for (const line of dependencies) {
    const problem = unmet(line, torch);
    if (problem === undefined) continue;
    const hint = "Change the host's environment or the requirement, or leave share_torch out of the pack's manifest.";
    const message = `the pack ${JSON.stringify(pack)} requires ${JSON.stringify(line)}, but ${problem}`;
    throw new AirlockError("environment_failed", message, { pack, hint });
  }
  return {
    dependencies: dependencies.filter((line) => !neverInstalled.includes(requirementName(line) ?? "")),
    // A marker that no Python satisfies: the way to take a distribution out of a resolution wherever it is required.
    overrides: neverInstalled.map((name) => `${name} ; python_version < '0'`),
    constraints: torch.requirements.filter((line) => {
      const name = requirementName(line);
      return name !== undefined && !neverInstalled.includes(name) && !line.includes("://");
    }),
  };
}

/** What is wrong with sharing where the pack requires `line`; undefined if nothing is, or nothing can be said. */
function unmet(line: string, torch: SharedTorch): string | undefined {
  const name = requirementName(line);
  if (name === undefined || !neverInstalled.includes(name) || line.includes(";")) return undefined;
  if (!torch.distributions.includes(name)) {
    return `the host has no ${name}, and one of another build than the host's torch ${torch.version} would not work`;
  }
  if (name !== "torch") return undefined;
  const versions = requirementVersions(line);
  const specifier = versions === undefined ? undefined : parseSpecifier(versions).specifier;
  const release = parseRelease(torch.version);
  if (specifier === undefined || release === undefined || specifier.admits(release)) return undefined;
  return `the host's torch, which it shares, is ${torch.version}`;
}
