/**
 * The lines of one slot's workers to the host: made when a worker is ready, left when it is to end, ended when it has.
 *
 * A line has its worker's number. Invariant: whoever asks how a line's worker ended is told, once it has; a line is left
 * by its host before its worker is ended for want of work, so no call is lost on it.
 */
import type { Clock, Timer } from "../transport/clock.ts";
import { AirlockError } from "../transport/errors.ts";
import type { Line } from "./line.ts";

/** A line, and why its worker ended, once it has. */
interface SlotLine {
  readonly line: Line;
  readonly ended: PromiseWithResolvers<AirlockError>;
  /** The host's word that it makes no more calls over it. */
  left: PromiseWithResolvers<boolean> | undefined;
}

/** How many lines that ended are remembered for a host that asks why: it does so at once. */
const linesRemembered = 8;

export class SlotLines {
  readonly #clock: Clock;
  /** Tells the host something about one of its lines. */
  readonly #tell: (name: "leave_line" | "use_line", number: number) => void;
  readonly #lines = new Map<number, SlotLine>();

  constructor(clock: Clock, tell: (name: "leave_line" | "use_line", number: number) => void) {
    this.#clock = clock;
    this.#tell = tell;
  }

  add(number: number, line: Line): void {
    this.#lines.set(number, { line, ended: Promise.withResolvers(), left: undefined });
    const [oldest] = this.#lines.keys();
    if (oldest !== undefined && this.#lines.size > linesRemembered) this.#lines.delete(oldest);
  }

  has(number: number): boolean {
    return this.#lines.has(number);
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
    const timer: Timer = this.#clock.after(withinMs, () => left.resolve(false));
    this.#tell("leave_line", number);
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
    this.#tell("use_line", number);
  }

  /** Ends a line, whose worker has ended for `reason`. */
  end(number: number, reason: AirlockError): void {
    const line = this.#lines.get(number);
    line?.line.end();
    line?.ended.resolve(reason);
  }

  /** Why the worker on this line ended; settles when it has. */
  async ending(number: number, pack: string): Promise<AirlockError> {
    const forgotten = new AirlockError("worker_died", `pack ${pack}: line ${number} has ended`);
    return (await this.#lines.get(number)?.ended.promise) ?? forgotten;
  }
}
