/**
 * The calls of the table by the server's number, which counts up: a ring of slots in place of a hash table, as every
 * frame looks into it.
 *
 * Invariant: a call lies in the slot of its number's lowest bits, so no two that are in here share those. A number whose
 * slot is taken is passed over; as the ring is never more than half full, the next free one is near.
 */
import type { Call } from "./session.ts";

const slotsMin = 1024;

export class CallSlots {
  #slots: (Call | undefined)[] = newSlots(slotsMin);
  #size = 0;
  #lastId: number;

  /** @param lastId the number after which numbering begins. */
  constructor(lastId: number) {
    this.#lastId = lastId;
  }

  get size(): number {
    return this.#size;
  }

  /** A number for the next call. Numbers wrap after 2³² calls; 0 is none. */
  freeId(): number {
    do {
      this.#lastId = (this.#lastId + 1) >>> 0;
    } while (this.#lastId === 0 || this.#slots[this.#slotOf(this.#lastId)] !== undefined);
    return this.#lastId;
  }

  #slotOf(id: number): number {
    return id & (this.#slots.length - 1);
  }

  /** Puts a call into the slot of its number, which {@link freeId} gave. */
  put(call: Call): void {
    this.#slots[this.#slotOf(call.id)] = call;
    this.#size += 1;
    if (this.#size * 2 > this.#slots.length) this.#grow();
  }

  #grow(): void {
    const calls = this.all();
    this.#slots = newSlots(this.#slots.length * 2);
    for (const call of calls) this.#slots[this.#slotOf(call.id)] = call;
  }

  find(id: number): Call | undefined {
    const call = this.#slots[this.#slotOf(id)];
    return call?.id === id ? call : undefined;
  }

  /** Returns whether the call was in here. */
  remove(call: Call): boolean {
    const slot = this.#slotOf(call.id);
    if (this.#slots[slot] !== call) return false;
    this.#slots[slot] = undefined;
    this.#size -= 1;
    return true;
  }

  all(): Call[] {
    return this.#slots.filter((call) => call !== undefined);
  }
}

function newSlots(count: number): (Call | undefined)[] {
  return new Array<Call | undefined>(count).fill(undefined);
}
