/**
 * Contenders in turns: each starts afresh once a round, in an order drawn anew for every round.
 *
 * Machines are shared and drift, and where the kernel places processes makes single starts bimodal. So contenders are
 * measured beside each other rather than one after the other, and the median over starts counts.
 */
import { shuffled } from "./random.ts";
import type { Figure, Measurement, ScenarioResult } from "./results.ts";
import type { Taken, Turn } from "./scenario.ts";

export interface TurnOptions {
  readonly rounds: number;
  /** Numbers in [0, 1), the same for the same seed. */
  readonly random: () => number;
  /** Called before each start. */
  readonly onTurn?: (turn: Turn) => void;
  /** Called when one has failed, and is not started again. */
  readonly onFailure?: (turn: Turn) => void;
}

export type TurnResults = Pick<ScenarioResult, "measurements" | "series" | "notes" | "failures">;

/** Takes all turns once a round; the measurements come in the order of `turns` and of their figures. */
export async function takeTurns(
  turns: readonly Turn[],
  { rounds, random, onTurn, onFailure }: TurnOptions,
): Promise<TurnResults> {
  const books = new Map(turns.map((turn) => [turn, new TurnBook(turn, rounds)]));
  for (let round = 0; round < rounds; round++) {
    for (const turn of shuffled(turns, random)) {
      const book = books.get(turn);
      if (book === undefined || book.failure !== undefined) continue;
      onTurn?.(turn);
      try {
        book.enter(round, await turn.start());
      } catch (error) {
        book.failure = `${turn.contender}, ${turn.condition}, failed in round ${round + 1}: ${String(error)}`;
        onFailure?.(turn);
      }
    }
  }
  const all = [...books.values()];
  const failed = (isRival: boolean): string[] =>
    all.flatMap(({ turn, failure }) => (failure !== undefined && (turn.isRival ?? false) === isRival ? [failure] : []));
  return {
    measurements: all.flatMap((book) => book.measurements()),
    series: all.flatMap((book) => book.series()),
    notes: failed(true),
    failures: failed(false),
  };
}

/** What the starts of one turn have measured. */
class TurnBook {
  readonly turn: Turn;
  /** Why it takes part no more. */
  failure: string | undefined;
  readonly #rounds: number;
  readonly #figures = new Map<string, Measurement>();
  #latest: Taken | undefined;

  constructor(turn: Turn, rounds: number) {
    this.turn = turn;
    this.#rounds = rounds;
  }

  enter(round: number, taken: Taken): void {
    this.#latest = taken;
    for (const figure of taken.figures) this.#measurementOf(figure).samples[round] = figure.value;
  }

  #measurementOf({ of, statistic, unit }: Figure): Measurement {
    const key = `${of}\n${statistic}`;
    const known = this.#figures.get(key);
    if (known !== undefined) return known;
    const { contender, condition } = this.turn;
    const samples: (number | null)[] = new Array(this.#rounds).fill(null);
    const made = { contender, condition, of, statistic, unit, samples };
    this.#figures.set(key, made);
    return made;
  }

  measurements(): Measurement[] {
    return [...this.#figures.values()];
  }

  /** Those of the last start: a line over time has no median. */
  series(): ScenarioResult["series"] {
    const { contender, condition } = this.turn;
    return (this.#latest?.series ?? []).map((each) => ({ contender, condition, ...each }));
  }
}
