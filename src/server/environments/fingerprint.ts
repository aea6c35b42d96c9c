/**
 * The key of an environment: two packs share one exactly if they ask for the same thing of the same Python.
 *
 * Invariant: the key depends on nothing but its input, and not on the order or the spacing of the requirements. It is
 * of what was asked for, not of what was resolved: a newer release on the index makes no new environment. Pure.
 */
import { normaliseRequirement } from "./requirement.ts";

/** Raised when environments are laid out differently, so that older ones are left alone and new ones made. */
export const environmentFormat = 1;

export interface FingerprintInput {
  /** e.g. `cpython`. */
  readonly implementation: string;
  /** Full version, e.g. `3.12.4`: compiled modules and the interpreter's path both follow it. */
  readonly version: string;
  /** e.g. `linux-x86_64-glibc`. */
  readonly platform: string;
  /** Everything that is installed, Airlock's own requirements included. */
  readonly requirements: readonly string[];
  /** Version of the host's torch, if it is shared. */
  readonly torchVersion?: string;
}

/** The first 20 hexadecimal digits (80 bits) of a SHA-256: short enough for a path, too long to collide by accident. */
export function fingerprint(input: FingerprintInput): string {
  // JSON keeps the fields apart whatever they hold, which joining with a separator would not.
  const canonical = JSON.stringify([
    environmentFormat,
    input.implementation,
    input.version,
    input.platform,
    normaliseRequirements(input.requirements),
    input.torchVersion ?? null,
  ]);
  return new Bun.CryptoHasher("sha256").update(canonical).digest("hex").slice(0, 20);
}

/** The requirements as the fingerprint sees them: normalised, each once, sorted by code unit. */
export function normaliseRequirements(requirements: readonly string[]): string[] {
  return [...new Set(requirements.map(normaliseRequirement))].sort();
}
