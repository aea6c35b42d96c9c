/**
 * The lines of one slot's workers to the host: made when a worker is ready, left when it is to end, ended when it has.
 *
 * A line has its worker's number. Invariant: whoever asks how a line's worker ended is told, once it has; a line is left
 * by its host before its worker is ended for want of work, so no call is lost on it.
 */
import type { Clock, Timer } from "../transport/clock.ts";
import { AirlockError } from "../transport/errors.ts";
import type { Line } from "./line.ts";
import type { Worker } from "./workers/worker.ts";

/** A line, and why its worker ended, once it has. */
interface SlotLine {
  readonly line: Line;
  readonly worker: Pick<Worker, "kill" | "dismiss">;
  readonly ended: PromiseWithResolvers<AirlockError>;
  /** The host's word that it makes no more calls over it. */
  left: PromiseWithResolvers<boolean> | undefined;
}

/** How many lines that ended are remembered for a host that asks why: it does so at once. */
const linesRemembered = 8;

export interface SlotLinesOptions {
  readonly clock: Clock;
  /** How long a worker may live on after its line has ended. */
  readonly lineEndMsMax: number;
  /** Name of the pack, for errors. */
  readonly pack: string;
  /** Tells the host something about one of its lines. */
  tell(name: "leave_line" | "use_line", number: number): void;
}

export class SlotLines {
  readonly #options: SlotLinesOptions;
  readonly #lines = new Map<number, SlotLine>();

  constructor(options: SlotLinesOptions) {
    this.#options = options;
  }

  add(number: number, line: Line, worker: Pick<Worker, "kill" | "dismiss">): void {
    this.#lines.set(number, { line, worker, ended: Promise.withResolvers(), left: undefined });
    const [oldest] = this.#lines.keys();
    if (oldest !== undefined && this.#lines.size > linesRemembered) this.#lines.delete(oldest);
  }

  /**
   * Has the host make no more calls over a line, and waits for those that it has made.
   *
   * @returns whether it says so within `withinMs`; true where there is no such line.
   */
  async leave(number: number, withinMs: number): Promise<boolean> {
    const line = this.#lines.get(number);
    if (line === undefined) return true;
    line.left ??= Promise.withResolvers();
    const { left } = line;
    const timer: Timer = this.#options.clock.after(withinMs, () => left.resolve(false));
    this.#options.tell("leave_line", number);
    const hasLeft = await Promise.race([left.promise, line.ended.promise.then(() => true)]);
    timer.cancel();
    return hasLeft;
  }

  /** The host says that it makes no more calls over a line. */
  left(number: number): void {
    this.#lines.get(number)?.left?.resolve(true);
  }

  /** Lets the host use a line again that it was to leave. */
  use(number: number): void {
    const line = this.#lines.get(number);
    if (line?.left === undefined) return;
    line.left = undefined;
    this.#options.tell("use_line", number);
  }

  /** Ends a line, whose worker has ended for `reason`. */
  end(number: number, reason: AirlockError): void {
    const line = this.#lines.get(number);
    line?.line.end();
    line?.ended.resolve(reason);
  }

  /** Why the worker on this line ended; settles when it has, which is seen to. */
  async ending(number: number): Promise<AirlockError> {
    const { clock, lineEndMsMax, pack } = this.#options;
    const line = this.#lines.get(number);
    if (line === undefined) return new AirlockError("worker_died", `pack ${pack}: line ${number} has ended`);
    // One that lives on without the line that it had, by its own doing or a breach of the protocol.
    const verdict = "ended by the server: its line to the host had ended, and it had not";
    const timer = clock.after(lineEndMsMax, () => line.worker.kill(verdict));
    const reason = await line.ended.promise;
    timer.cancel();
    return reason;
  }

  /** Ends the worker on this line, whose host says that it does not answer. It may have ended already. */
  endOverdue(number: number): void {
    const verdict = "ended by its host: it had not answered a call long after that was cancelled or overdue";
    this.#lines.get(number)?.worker.dismiss(verdict);
  }
}
