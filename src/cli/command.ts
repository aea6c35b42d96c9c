/**
 * What a subcommand is, and how its arguments are read.
 */
import { type ParseArgsConfig, parseArgs } from "node:util";

export interface Command {
  readonly name: string;
  readonly summary: string;
  /** The command line after `airlock`. */
  readonly usage: string;
  /** The options, explained line by line. */
  readonly options: string;
  readonly examples: readonly string[];
  /** Runs with the arguments after the command's name; returns the exit code. */
  run(args: readonly string[]): Promise<number>;
}

/** The command line does not say what the command needs. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** `node:util`'s parser, with its complaints as {@link UsageError}. */
export function readArguments<T extends ParseArgsConfig>(args: readonly string[], config: T) {
  try {
    return parseArgs({ ...config, args: [...args], strict: true });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}
