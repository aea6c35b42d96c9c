/**
 * One thing that keeps a workflow from running, and how a list of them reads.
 *
 * A problem names the node and the input it is about, so that a person can find the place in a graph editor. Deciding
 * what is a problem belongs to whoever checks.
 */
import { AirlockError } from "../transport/errors.ts";

/** What a message calls a node by. */
export interface NodeLabel {
  readonly id: string;
  readonly title: string;
  readonly classType: string;
}

export interface Problem {
  /** Absent where the workflow as a whole is meant. */
  readonly node?: NodeLabel;
  readonly input?: string;
  readonly message: string;
  /** What to do about it. */
  readonly hint?: string;
  /** The node's class is in none of the packs. */
  readonly isClassMissing?: boolean;
}

/** `node 3 "Sampler" (KSampler)`; the title is left out where it says nothing more than the class. */
export function labelNode(node: NodeLabel): string {
  const title = node.title === node.classType ? "" : ` ${JSON.stringify(node.title)}`;
  return `node ${node.id}${title} (${node.classType})`;
}

/** One problem as one line. */
export function describeProblem(problem: Problem): string {
  const where = problem.node === undefined ? [] : [labelNode(problem.node)];
  if (problem.input !== undefined) where.push(`input ${JSON.stringify(problem.input)}`);
  const place = where.length === 0 ? "" : `${where.join(", ")}: `;
  const hint = problem.hint === undefined ? "" : ` → ${problem.hint}`;
  return `${place}${problem.message}${hint}`;
}

/** All problems as one error. */
export function workflowError(problems: readonly Problem[]): AirlockError {
  const [first] = problems;
  if (first !== undefined && problems.length === 1) {
    const { hint, ...rest } = first;
    return new AirlockError("workflow_invalid", describeProblem(rest), hint === undefined ? {} : { hint });
  }
  const lines = problems.map((problem) => `  ${describeProblem(problem)}`);
  return new AirlockError("workflow_invalid", `the workflow has ${problems.length} problems:\n${lines.join("\n")}`);
}
