/**
 * Work that several callers may want at once and that is done once.
 *
 * Invariant: at most one run of a key is under way. A caller that gives up leaves alone; the run is aborted when the
 * last one leaves, and whoever comes after that waits for its clean-up before a new run begins. Results aren't kept.
 */
import { throwIfAborted, untilAborted } from "./cancellation.ts";

export interface SharedWorkOptions<Report> {
  readonly onReport?: ((report: Report) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

interface Run<Result, Report> {
  readonly result: Promise<Result>;
  readonly controller: AbortController;
  readonly listeners: Set<(report: Report) => void>;
  waiters: number;
  lastReport: Report | undefined;
}

export type Work<Result, Report> = (signal: AbortSignal, report: (report: Report) => void) => Promise<Result>;

export class SharedWork<Result, Report> {
  readonly #runs = new Map<string, Run<Result, Report>>();

  /**
   * Joins the run of `key`, or begins one with `work`.
   *
   * @throws AirlockError `cancelled` when `signal` aborts; else whatever the work throws
   */
  async join(key: string, work: Work<Result, Report>, options: SharedWorkOptions<Report> = {}): Promise<Result> {
    for (;;) {
      throwIfAborted(options.signal);
      const run = this.#runs.get(key) ?? this.#begin(key, work);
      if (!run.controller.signal.aborted) return await this.#wait(run, options);
      // Abandoned by all, still cleaning up: its outcome is nobody's, but what it leaves on disk would be ours.
      await untilAborted(
        run.result.then(
          () => undefined,
          () => undefined,
        ),
        options.signal,
      );
    }
  }

  /** Settles when no run is under way. */
  async idle(): Promise<void> {
    while (this.#runs.size > 0) await Promise.allSettled([...this.#runs.values()].map((run) => run.result));
  }

  #begin(key: string, work: Work<Result, Report>): Run<Result, Report> {
    const controller = new AbortController();
    const listeners = new Set<(report: Report) => void>();
    const report = (latest: Report): void => {
      run.lastReport = latest;
      for (const listener of listeners) listener(latest);
    };
    // The work starts a microtask later, so that its first report finds whoever began it listening.
    const result = Promise.resolve()
      .then(() => work(controller.signal, report))
      .finally(() => this.#runs.delete(key));
    // With every waiter gone, nobody is left to hear of a failure.
    result.catch(() => undefined);
    const run: Run<Result, Report> = { result, controller, listeners, waiters: 0, lastReport: undefined };
    this.#runs.set(key, run);
    return run;
  }

  async #wait(run: Run<Result, Report>, { onReport, signal }: SharedWorkOptions<Report>): Promise<Result> {
    // A wrapper of its own: two callers may pass the same function, and each hears each report.
    const listener = onReport && ((report: Report) => onReport(report));
    if (listener) {
      run.listeners.add(listener);
      if (run.lastReport !== undefined) listener(run.lastReport);
    }
    run.waiters++;
    try {
      return await untilAborted(run.result, signal);
    } finally {
      if (listener) run.listeners.delete(listener);
      if (--run.waiters === 0) run.controller.abort();
    }
  }
}
