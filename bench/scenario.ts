/** What a scenario is to `bun run bench`. One module in scenarios/ holds a group of them; scenarios/all.ts lists all. */
import type { Figure, Measurement, Series } from "./results.ts";

export interface Scenario {
  readonly name: string;
  readonly group: "per call" | "per GB" | "drop-in" | "life" | "server" | "GPU";
  /** What it measures, in one line. */
  readonly describe: string;
  /** How many rounds it takes unless told otherwise. */
  readonly rounds: number;
  /** Contenders that the others are divided by, the most telling first. */
  readonly bases: readonly string[];
  /** Which measurements are worth a row in a terminal; all are where it is missing. */
  readonly isShown?: (measurement: Measurement) => boolean;
  /** What it should come to. */
  readonly goals?: readonly Goal[];
  /** How it is drawn; dots by default. */
  readonly plot?: "dots" | "lines" | "series";
  /** Who takes part. Makes the environments that are missing. */
  plan(options: PlanOptions): Promise<Plan>;
}

export interface PlanOptions {
  /** Everything once and as little of it as there is: to see that it works, not how fast. */
  readonly smoke: boolean;
  /** Whether those of other people's making take part. */
  readonly withRivals: boolean;
  /** Folder for CPU profiles of what is measured; none are taken where it is missing. */
  readonly profiles?: string | undefined;
}

export interface Plan {
  readonly turns: readonly Turn[];
  /** Who is absent, and what to do about it; a sentence each. */
  readonly notes: readonly string[];
}

/** One contender under one condition. */
export interface Turn {
  readonly contender: string;
  readonly condition: string;
  /** Whether it is of other people's making: the run goes on without it where it fails. */
  readonly isRival?: boolean;
  /** Starts it, measures, and ends it. */
  start(): Promise<Taken>;
}

/** What one start measured. */
export interface Taken {
  readonly figures: readonly Figure[];
  readonly series?: readonly Series[];
}

/** A number that is wanted of a contender, as it is or as a multiple of another's. */
export interface Goal {
  readonly contender: string;
  readonly condition?: string;
  readonly of: string;
  readonly statistic: string;
  /** Whom it is divided by: another contender, another statistic of its own, or both. */
  readonly base?: { readonly contender?: string; readonly of?: string; readonly statistic?: string };
  readonly atMost?: number;
  readonly atLeast?: number;
}
