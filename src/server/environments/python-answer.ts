/** Runs a program that answers with one JSON object on standard output, and checks the answer's shape. */
import * as v from "valibot";
import { type CommandOptions, type CommandResult, runCommand } from "./command.ts";

/** A Python that takes longer to start is a hang: a wrapper that asks something, a dead network mount. */
const answerTimeoutMs = 20_000;

/**
 * The answer, or undefined if the program failed, took longer than 20 s, or answered something else; `result` tells.
 *
 * @throws AirlockError `cancelled` if the signal aborts; `environment_failed` if the program cannot be started
 */
export async function ask<Schema extends v.GenericSchema>(
  command: readonly string[],
  schema: Schema,
  options: Pick<CommandOptions, "env" | "signal" | "clock">,
): Promise<{ readonly answer: v.InferOutput<Schema> | undefined; readonly result: CommandResult }> {
  const result = await runCommand(command, { ...options, timeoutMs: answerTimeoutMs });
  if (result.exitCode !== 0) return { answer: undefined, result };
  const parsed = v.safeParse(schema, parseJson(result.stdout));
  if (parsed.success) return { answer: parsed.output, result };
  return { answer: undefined, result: { ...result, ending: "an answer that makes no sense" } };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
