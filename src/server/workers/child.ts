/**
 * A child process, however it was made, and what it is given: pairs of the end that stays with the server and its own.
 */
import type { ProcessExit } from "./exit.ts";

export type ChildEnd = Pick<ProcessExit, "code" | "signal">;

export interface Child {
  /** Its number, which is its process group's and its session's, too; nobody else's before {@link release}. */
  readonly pid: number;
  /** Settles when it has ended. */
  readonly ended: Promise<ChildEnd>;
  /** Lets its number be given out again, once it has ended and its group was; settles when there is nothing of it left. */
  release(): Promise<void>;
}

type Pair = readonly [near: number, far: number];

/** Descriptors: 1 and 2 of the child, 3, and 4. */
export interface Ends {
  readonly output: Pair;
  readonly lifeline: Pair;
  readonly stacks: Pair;
}
