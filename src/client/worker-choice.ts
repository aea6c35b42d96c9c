/**
 * Which of a pack's workers takes a call, by what is known of each: pure.
 *
 * A worker lives in a slot, which has at most one at a time. A call goes to where an object among its inputs lives, else to
 * where its node keeps something, else to where the call waits that it is made for, else to the least loaded. Invariant: of
 * a pack whose calls get a fresh process each, no worker is given a second call, but by the first and by the third of
 * these. Twin of `worker/src/comfy_airlock/host/worker_choice.py`; both read `tests/vectors/worker-choice.json`.
 */

export interface ChoiceRules {
  /** How many slots there are. */
  readonly workers: number;
  /** Each call of a node gets a worker that has run none. */
  readonly isFresh: boolean;
  /** Nodes that keep something in the worker that took their first call. */
  readonly sticky: ReadonlySet<string>;
}

export interface ChoiceRequest {
  /** The node that is called; undefined for what runs none. */
  readonly node?: string | undefined;
  /** Slots in whose workers objects live that are among the inputs. */
  readonly owners: readonly number[];
  /** Where the call waits for an answer that this one is made for: it would wait behind others elsewhere, who may wait for it. */
  readonly within?: number | undefined;
}

class Slot {
  /** Calls under way there, of all kinds. */
  calls = 0;
  /** As far as is known: a call starts a worker. */
  isRunning = false;
  /** Its worker was given a node, and each node is to have one of its own. */
  isSpent = false;
  isRetiring = false;
}

export class WorkerChoice {
  readonly #rules: ChoiceRules;
  readonly #slots: readonly Slot[];
  /** Where sticky nodes have what they keep. */
  readonly #homes = new Map<string, number>();

  constructor(rules: ChoiceRules) {
    this.#rules = rules;
    this.#slots = Array.from({ length: rules.workers }, () => new Slot());
  }

  /** The slot that takes a call, which is counted there until {@link end}; undefined where it has to wait for one. */
  take(request: ChoiceRequest): number | undefined {
    const [first, ...others] = this.#candidates(request);
    if (first === undefined) return undefined;
    const index = others.reduce((best, other) => (this.#isBetter(other, best) ? other : best), first);
    this.begin(index);
    const { node } = request;
    if (node === undefined) return index;
    if (this.#rules.isFresh) this.#slot(index).isSpent = true;
    else if (this.#rules.sticky.has(node) && !this.#homes.has(node)) this.#homes.set(node, index);
    return index;
  }

  #candidates({ node, owners, within }: ChoiceRequest): readonly number[] {
    if (owners.length > 0) return owners;
    const home = node === undefined ? undefined : this.#homes.get(node);
    if (home !== undefined) return [home];
    if (within !== undefined) return [within];
    const all = [...this.#slots.keys()];
    if (!this.#rules.isFresh) return all;
    const unspent = all.filter((index) => !this.#slot(index).isSpent);
    return node === undefined && unspent.length === 0 ? all : unspent;
  }

  #isBetter(index: number, than: number): boolean {
    const [slot, other] = [this.#slot(index), this.#slot(than)];
    if (slot.calls !== other.calls) return slot.calls < other.calls;
    return slot.isRunning && !other.isRunning;
  }

  #slot(index: number): Slot {
    const slot = this.#slots[index];
    if (slot === undefined) throw new RangeError(`there is no worker slot ${index}`);
    return slot;
  }

  /** A call goes to a slot that needed no choice: an object's, to where it lives. */
  begin(index: number): void {
    const slot = this.#slot(index);
    slot.calls += 1;
    slot.isRunning = true;
  }

  /** A call was answered, or never will be; `died` where that is because its worker did. */
  end(index: number, died: boolean): void {
    const slot = this.#slot(index);
    slot.calls -= 1;
    if (died) this.workerEnded(index);
  }

  /** Whether a worker runs there, as far as is known. */
  isRunning(index: number): boolean {
    return this.#slot(index).isRunning;
  }

  /** A worker has ended. Calls that are under way nevertheless fail in a moment, or wait for the next one. */
  workerEnded(index: number): void {
    const slot = this.#slot(index);
    if (slot.calls > 0) return;
    slot.isRunning = false;
    for (const [node, home] of this.#homes) if (home === index) this.#homes.delete(node);
  }

  /** Whether a slot's worker is to be ended now, as it is spent and has no call left. True once, until {@link retired}. */
  retire(index: number): boolean {
    const slot = this.#slot(index);
    if (!slot.isSpent || slot.isRetiring || slot.calls > 0) return false;
    slot.isRetiring = true;
    return true;
  }

  /** A slot's spent worker is gone: another call may have the slot. */
  retired(index: number): void {
    Object.assign(this.#slot(index), { isSpent: false, isRetiring: false });
    this.workerEnded(index);
  }
}
