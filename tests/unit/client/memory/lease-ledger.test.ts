import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { LeaseLedger } from "../../../../src/client/memory/lease-ledger.ts";
import type { Attachment } from "../../../../src/transport/frame.ts";

interface Message {
  readonly kind: "message" | "return";
  readonly block: Attachment;
}

/** A process with a ledger, and what is on its way to it. */
class Process {
  readonly ledger: LeaseLedger<Process>;
  readonly incoming = new Map<Process, Message[]>();
  /** Blocks that something here uses, once for each use. */
  readonly used: Attachment[] = [];
  readonly freed = new Set<Attachment>();
  readonly name: string;
  #lastPage = 0;
  readonly segment: number;
  isAlive = true;

  constructor(name: string, segment: number) {
    this.name = name;
    this.segment = segment;
    this.ledger = new LeaseLedger({
      freed: (block) => {
        expect(this.freed.has(block)).toBe(false);
        this.freed.add(block);
      },
      returned: (peer, block, receipts) => {
        for (let count = 0; count < receipts; count++) this.send(peer, { kind: "return", block });
      },
      ended: () => undefined,
    });
  }

  allocate(): void {
    this.#lastPage += 1;
    const block = { segment: this.segment, page: this.#lastPage, pages: 1, generation: 1 };
    this.ledger.own(block);
    this.used.push(block);
  }

  give(peer: Process, block: Attachment): void {
    expect(this.ledger.give(peer, block)).toBe(true);
    this.send(peer, { kind: "message", block });
  }

  send(peer: Process, message: Message): void {
    if (!peer.isAlive) return;
    const queue = peer.incoming.get(this) ?? [];
    queue.push(message);
    peer.incoming.set(this, queue);
  }

  /** Takes the next message of a peer's; false where there is none. */
  take(peer: Process): boolean {
    const message = this.incoming.get(peer)?.shift();
    if (message === undefined) return false;
    const { kind, block } = message;
    if (kind === "return") expect(this.ledger.takeBack(peer, block)).toBe(true);
    else {
      this.ledger.receive(peer, block, block.segment === this.segment);
      this.used.push(block);
    }
    return true;
  }

  drop(index: number): void {
    const [block] = this.used.splice(index % this.used.length, 1);
    if (block !== undefined) this.ledger.unuse(block);
  }
}

const step = fc.oneof(
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("allocate" as const), who: fc.nat(2) }) },
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant("give" as const), who: fc.nat(2), what: fc.nat(), to: fc.nat(1) }),
  },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("take" as const), who: fc.nat(2), from: fc.nat(1) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("drop" as const), who: fc.nat(2), what: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("die" as const), who: fc.integer({ min: 1, max: 2 }) }) },
);

type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** A host that talks to two workers, which may die and have heirs. */
class Network {
  readonly #host: Process;
  readonly #workers: [Process, Process];
  readonly #everybody: Process[] = [];

  constructor() {
    this.#host = this.#start("host");
    this.#workers = [this.#start("a"), this.#start("b")];
  }

  #start(name: string): Process {
    const process = new Process(name, this.#everybody.length + 1);
    this.#everybody.push(process);
    return process;
  }

  get #living(): Process[] {
    return [this.#host, ...this.#workers];
  }

  /** Of those that `process` talks to, one: a worker has its host alone. */
  #peerOf(process: Process, choice: number): Process {
    return process === this.#host ? (this.#workers[choice] as Process) : this.#host;
  }

  do(each: Step): void {
    const who = this.#living[each.who] as Process;
    if (each.kind === "allocate") who.allocate();
    else if (each.kind === "take") who.take(this.#peerOf(who, each.from));
    else if (each.kind === "die") this.#die(who, each.who - 1);
    else if (who.used.length === 0) return;
    else if (each.kind === "drop") who.drop(each.what);
    else who.give(this.#peerOf(who, each.to), who.used[each.what % who.used.length] as Attachment);
  }

  #die(worker: Process, slot: number): void {
    worker.isAlive = false;
    // What it said before is read first, as on a connection.
    while (this.#host.take(worker));
    const heir = this.#start(worker.name);
    this.#host.ledger.ended(worker, [], heir);
    this.#workers[slot] = heir;
  }

  /** What a living process uses, or has on its way to it, is not freed by an owner that lives. */
  check(): void {
    for (const process of this.#living) {
      const coming = [...process.incoming]
        .filter(([from]) => from.isAlive)
        .flatMap(([, messages]) => messages.filter(({ kind }) => kind === "message").map(({ block }) => block));
      for (const block of [...process.used, ...coming]) {
        const owner = this.#everybody.find(({ segment }) => segment === block.segment);
        if (owner?.isAlive) expect(owner.freed.has(block)).toBe(false);
      }
    }
  }

  /** Nothing is used any more, and all that is on its way arrives. */
  settle(): void {
    for (let moved = true; moved; ) {
      moved = false;
      for (const process of this.#living) {
        for (const peer of this.#living) moved = process.take(peer) || moved;
        moved ||= process.used.length > 0;
        while (process.used.length > 0) process.drop(0);
      }
    }
  }

  checkSettled(): void {
    for (const { ledger } of this.#living) {
      expect(ledger.heldPages().size).toBe(0);
      for (const { segment } of this.#everybody) expect(ledger.knows(segment)).toBe(false);
    }
  }
}

test("over any history no block is freed that anybody alive can reach, and all are once nobody can", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const network = new Network();
      for (const each of steps) {
        network.do(each);
        network.check();
      }
      network.settle();
      network.checkSettled();
    }),
    { numRuns: 300 },
  );
});

const block: Attachment = { segment: 9, page: 1, pages: 4, generation: 3 };
const [giver, other, heir] = [{ name: "giver" }, { name: "other" }, { name: "heir" }];

function recorded() {
  const told: unknown[] = [];
  const ledger = new LeaseLedger<{ name: string }>({
    freed: (each) => told.push(["freed", each.page]),
    returned: ({ name }, each, receipts) => told.push(["returned", name, each.page, receipts]),
    ended: (each) => told.push(["ended", each.page]),
  });
  return { ledger, take: () => told.splice(0) };
}

describe("a ledger", () => {
  test("returns all receipts of a block at once, when its last use is over", () => {
    const { ledger, take } = recorded();
    ledger.receive(giver, block, false);
    ledger.receive(giver, block, false);
    ledger.unuse(block);
    expect(take()).toEqual([]);
    ledger.unuse(block);
    expect(take()).toEqual([
      ["returned", "giver", 1, 2],
      ["ended", 1],
    ]);
  });

  test("returns at once what it has from somebody else, and keeps the block", () => {
    const { ledger, take } = recorded();
    ledger.receive(giver, block, false);
    ledger.receive(other, block, false);
    expect(take()).toEqual([["returned", "other", 1, 1]]);
    ledger.unuse(block);
    expect(take()).toEqual([]);
    ledger.unuse(block);
    expect(take()).toEqual([
      ["returned", "giver", 1, 1],
      ["ended", 1],
    ]);
  });

  test("returns at once a block of its own that comes home, also where that was freed", () => {
    const { ledger, take } = recorded();
    ledger.own(block);
    ledger.give(giver, block);
    ledger.receive(giver, block, true);
    expect(take()).toEqual([["returned", "giver", 1, 1]]);
    expect(ledger.takeBack(giver, block)).toBe(true);
    ledger.unuse(block);
    ledger.unuse(block);
    expect(take()).toEqual([["freed", 1]]);
    ledger.receive(giver, block, true);
    expect(take()).toEqual([["returned", "giver", 1, 1]]);
    expect(ledger.use(block)).toBe(false);
  });

  test("tells the generations of a page apart", () => {
    const { ledger, take } = recorded();
    ledger.own(block);
    expect(ledger.give(giver, { ...block, generation: 4 })).toBe(false);
    ledger.give(giver, block);
    expect(ledger.takeBack(giver, { ...block, generation: 4 })).toBe(false);
    expect(take()).toEqual([]);
  });

  test("counts what a peer has been given, and takes back no more", () => {
    const { ledger } = recorded();
    ledger.own(block);
    ledger.give(giver, block);
    expect([ledger.takeBack(other, block), ledger.takeBack(giver, block), ledger.takeBack(giver, block)]).toEqual([
      false,
      true,
      false,
    ]);
  });

  test("keeps what a peer that is gone has given, and returns it to nobody", () => {
    const { ledger, take } = recorded();
    ledger.receive(giver, block, false);
    ledger.ended(giver, [], heir);
    expect(take()).toEqual([]);
    ledger.unuse(block);
    expect(take()).toEqual([["ended", 1]]);
  });

  test("carries over to a peer's heir what messages name that wait for it, and releases the rest", () => {
    const { ledger, take } = recorded();
    const second = { ...block, page: 5 };
    for (const each of [block, second]) {
      ledger.own(each);
      for (let count = 0; count < 3; count++) ledger.give(giver, each);
      ledger.unuse(each);
    }
    ledger.ended(giver, [block, block], heir);
    expect(take()).toEqual([["freed", 5]]);
    expect([...ledger.heldPages()]).toEqual([[heir, 4]]);
    expect([1, 2, 3].map(() => ledger.takeBack(heir, block))).toEqual([true, true, false]);
    expect(take()).toEqual([["freed", 1]]);
  });

  test("leaves a peer whose process is replaced, as its own heir, what waits for the next one", () => {
    const { ledger, take } = recorded();
    ledger.own(block);
    for (let count = 0; count < 3; count++) ledger.give(giver, block);
    ledger.unuse(block);
    ledger.ended(giver, [block]);
    expect([1, 2].map(() => ledger.takeBack(giver, block))).toEqual([true, false]);
    expect(take()).toEqual([["freed", 1]]);
  });
});
