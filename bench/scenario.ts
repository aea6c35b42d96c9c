/** What a scenario is to `bun run bench`. One module in scenarios/ each, listed in main.ts. */
import type { Column } from "../src/cli/table.ts";

export interface Scenario {
  readonly name: string;
  /** What it measures, in one line. */
  readonly describe: string;
  /** How many rounds it takes unless told otherwise. */
  readonly rounds: number;
  run(options: RunOptions): Promise<Report>;
}

export interface RunOptions {
  readonly rounds: number;
  /** Everything once and as little of it as there is: to see that it works, not how fast. */
  readonly smoke: boolean;
  /** Numbers in [0, 1), the same for the same seed. */
  readonly random: () => number;
  /** Part of the names of the contenders that take part; all do where it is missing. */
  readonly contender?: string | undefined;
  /** Folder for CPU profiles of the servers that are measured; none are taken where it is missing. */
  readonly profiles?: string | undefined;
}

export interface Report {
  /** Missing where nothing was measured; the notes say why. */
  readonly table?: { readonly columns: readonly Column[]; readonly rows: readonly (readonly string[])[] };
  /** Who was absent, and what to do about it; a sentence each. */
  readonly notes: readonly string[];
}
