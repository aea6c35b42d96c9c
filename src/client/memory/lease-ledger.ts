/**
 * Who has what of which block: the receipts that were given to peers, those that peers gave, and what needs a block here.
 * Pure; PROTOCOL.md, "Leases".
 *
 * Invariant: a block stays as long as anything here uses it or any peer has a receipt of it; then it is free, where it is
 * this process's own, and else all its receipts go back to the one who gave them. What is given on counts as a use.
 */
import type { Attachment } from "../../transport/frame.ts";

/** Told of what follows; neither may call the ledger. */
export interface LedgerEvents<Peer> {
  /** A block of this process's own is needed by nobody. */
  freed(block: Attachment): void;
  /** Receipts are over: they go back to their giver. */
  returned(peer: Peer, block: Attachment, receipts: number): void;
  /** A block of somebody else's is needed no more; comes after its receipts were returned. */
  ended(block: Attachment): void;
}

interface Entry<Peer> {
  readonly block: Attachment;
  readonly isOwn: boolean;
  /** Who gave it, as long as that lives. */
  giver: Peer | undefined;
  /** How often it was given and not returned. */
  receipts: number;
  /** What needs it here, and receipts of it that others have. */
  uses: number;
}

/** How often each block was given to one peer, by key. */
type Given = Map<string, { readonly block: Attachment; count: number }>;

function keyOf({ segment, page, generation }: Attachment): string {
  return `${segment} ${page} ${generation}`;
}

export class LeaseLedger<Peer extends object> {
  readonly #events: LedgerEvents<Peer>;
  readonly #entries = new Map<string, Entry<Peer>>();
  readonly #given = new Map<Peer, Given>();

  constructor(events: LedgerEvents<Peer>) {
    this.#events = events;
  }

  /** A block was allocated here; its maker uses it. */
  own(block: Attachment): void {
    this.#entries.set(keyOf(block), { block, isOwn: true, giver: undefined, receipts: 0, uses: 1 });
  }

  /** One more thing here needs a block. False where there is none: it was freed, or returned. */
  use(block: Attachment): boolean {
    const entry = this.#entries.get(keyOf(block));
    if (entry === undefined) return false;
    entry.uses += 1;
    return true;
  }

  /** One thing less needs a block. */
  unuse(block: Attachment): void {
    const entry = this.#entries.get(keyOf(block));
    if (entry !== undefined) this.#unuse(entry, 1);
  }

  #unuse(entry: Entry<Peer>, count: number): void {
    entry.uses -= count;
    if (entry.uses > 0) return;
    this.#entries.delete(keyOf(entry.block));
    if (entry.isOwn) return this.#events.freed(entry.block);
    if (entry.giver !== undefined) this.#events.returned(entry.giver, entry.block, entry.receipts);
    this.#events.ended(entry.block);
  }

  /** A message that names a block goes to a peer. False where there is no such block here. */
  give(peer: Peer, block: Attachment): boolean {
    if (!this.use(block)) return false;
    const given = this.#givenTo(peer);
    const key = keyOf(block);
    const known = given.get(key);
    if (known === undefined) given.set(key, { block, count: 1 });
    else known.count += 1;
    return true;
  }

  #givenTo(peer: Peer): Given {
    const known = this.#given.get(peer);
    if (known !== undefined) return known;
    const made: Given = new Map();
    this.#given.set(peer, made);
    return made;
  }

  /** A peer has one receipt less: it returned it, or never got it. False where it had none. */
  takeBack(peer: Peer, block: Attachment): boolean {
    return this.#takeBack(peer, keyOf(block), 1);
  }

  #takeBack(peer: Peer, key: string, most: number): boolean {
    const given = this.#given.get(peer);
    const held = given?.get(key);
    if (given === undefined || held === undefined) return false;
    const count = Math.min(held.count, most);
    held.count -= count;
    if (held.count === 0) given.delete(key);
    if (given.size === 0) this.#given.delete(peer);
    const entry = this.#entries.get(key);
    if (entry !== undefined) this.#unuse(entry, count);
    return true;
  }

  /**
   * A message from a peer names a block: what reads it uses the block, until it says {@link unuse}.
   *
   * @param isOwn whether the block's segment is this process's own.
   */
  receive(peer: Peer, block: Attachment, isOwn: boolean): void {
    const known = this.#entries.get(keyOf(block));
    if (known !== undefined) {
      known.uses += 1;
      if (known.giver === peer) known.receipts += 1;
      else this.#events.returned(peer, block, 1);
    } else if (isOwn) this.#events.returned(peer, block, 1);
    else this.#entries.set(keyOf(block), { block, isOwn: false, giver: peer, receipts: 1, uses: 1 });
  }

  /**
   * A peer's process is gone. What it held is released; what it gave stays as long as it is used here.
   *
   * @param unanswered what messages name that wait for the peer's heir: it gets those receipts.
   */
  ended(peer: Peer, unanswered: Iterable<Attachment> = [], heir: Peer = peer): void {
    for (const entry of this.#entries.values()) if (entry.giver === peer && heir !== peer) entry.giver = undefined;
    const kept = new Map<string, number>();
    for (const block of unanswered) kept.set(keyOf(block), (kept.get(keyOf(block)) ?? 0) + 1);
    for (const [key, { block, count }] of [...(this.#given.get(peer) ?? [])]) {
      const carried = Math.min(count, kept.get(key) ?? 0);
      if (heir !== peer) for (let receipt = 0; receipt < carried; receipt++) this.give(heir, block);
      const over = heir === peer ? count - carried : count;
      if (over > 0) this.#takeBack(peer, key, over);
    }
  }

  /** Whether anything here has, or needs, a block of a segment. */
  knows(segment: number): boolean {
    return [...this.#entries.values()].some(({ block }) => block.segment === segment);
  }

  /** How many pages of this process's own blocks each peer has receipts of. */
  heldPages(): Map<Peer, number> {
    const isOwn = (key: string): boolean => this.#entries.get(key)?.isOwn === true;
    const pagesOf = (given: Given): number =>
      [...given].reduce((sum, [key, { block }]) => sum + (isOwn(key) ? block.pages : 0), 0);
    return new Map([...this.#given].map(([peer, given]) => [peer, pagesOf(given)]));
  }
}
