/**
 * Contenders in turns: each starts afresh once a round, in an order drawn anew for every round.
 *
 * Machines are shared and drift, and where the kernel places processes makes single starts bimodal. So contenders are
 * measured beside each other rather than one after the other, and the median over starts counts.
 */
import { shuffled } from "./random.ts";
import type { RunOptions } from "./scenario.ts";
import { type Summary, summarise } from "./statistics.ts";

/** What one start measured, by name. */
export type Figures = Readonly<Record<string, number>>;

/** One contender under one condition. */
export interface Turn {
  readonly contender: string;
  /** Where its processes run, or whatever else sets this turn apart from the contender's others. */
  readonly condition: string;
  /** Starts it, measures, and ends it. */
  start(): Promise<Figures>;
}

/** One figure of one turn, over all rounds. */
export interface Measurement {
  readonly contender: string;
  readonly condition: string;
  readonly figure: string;
  readonly over: Summary;
}

/** Takes all turns once a round; the measurements come in the order of `turns` and of their figures. */
export async function takeTurns(turns: readonly Turn[], options: RunOptions): Promise<Measurement[]> {
  const { rounds, random, contender = "" } = options;
  const chosen = turns.filter((turn) => turn.contender.includes(contender));
  const samples = new Map<Turn, Map<string, number[]>>(chosen.map((turn) => [turn, new Map()]));
  for (let round = 0; round < rounds; round++) {
    for (const turn of shuffled(chosen, random)) {
      for (const [figure, value] of Object.entries(await turn.start())) {
        const ofTurn = samples.get(turn);
        ofTurn?.set(figure, [...(ofTurn.get(figure) ?? []), value]);
      }
    }
  }
  return [...samples].flatMap(([{ contender, condition }, figures]) =>
    [...figures].map(([figure, values]) => ({ contender, condition, figure, over: summarise(values) })),
  );
}
