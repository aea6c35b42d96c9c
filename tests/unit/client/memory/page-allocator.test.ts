import { expect, test } from "bun:test";
import fc from "fast-check";
import { PageAllocator } from "../../../../src/client/memory/page-allocator.ts";

const [from, to] = [3, 67];

/** One flag a page: what a reader understands at a glance. */
class Model {
  readonly taken = new Array<boolean>(to).fill(false);

  /** Where so many pages lie free together, each run with its length. */
  runs(): [page: number, pages: number][] {
    const runs: [number, number][] = [];
    for (let page = from; page < to; page++) {
      if (this.taken[page]) continue;
      const last = runs.at(-1);
      if (last !== undefined && last[0] + last[1] === page) last[1] += 1;
      else runs.push([page, 1]);
    }
    return runs;
  }

  mark(page: number, pages: number, taken: boolean): void {
    this.taken.fill(taken, page, page + pages);
  }
}

test("any history of blocks gives out what is free, from the smallest run that has it, and joins what comes back", () => {
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.record({ allocate: fc.integer({ min: 1, max: 20 }) }) },
    { weight: 2, arbitrary: fc.record({ free: fc.nat() }) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const allocator = new PageAllocator(from, to);
      const model = new Model();
      const blocks: [number, number][] = [];
      for (const each of steps) {
        if ("allocate" in each) {
          const pages = each.allocate;
          const fitting = model.runs().filter(([, length]) => length >= pages);
          const smallest = Math.min(...fitting.map(([, length]) => length));
          const page = allocator.allocate(pages);
          if (page === undefined) expect(fitting).toEqual([]);
          else {
            expect(fitting.filter(([, length]) => length === smallest).map(([first]) => first)).toContain(page);
            model.mark(page, pages, true);
            blocks.push([page, pages]);
          }
        } else if (blocks.length > 0) {
          const [[page, pages]] = blocks.splice(each.free % blocks.length, 1) as [[number, number]];
          allocator.free(page, pages);
          model.mark(page, pages, false);
        }
        expect(allocator.freePages).toBe(model.runs().reduce((sum, [, pages]) => sum + pages, 0));
        expect(allocator.isEmpty).toBe(blocks.length === 0);
      }
      for (const [page, pages] of blocks) allocator.free(page, pages);
      expect(allocator.allocate(to - from)).toBe(from);
    }),
  );
});

test("pages that are free, or were never given out, are not taken back", () => {
  const allocator = new PageAllocator(1, 17);
  const page = allocator.allocate(4) ?? expect.unreachable();
  allocator.allocate(2);
  allocator.free(page, 4);
  for (const [first, pages] of [
    [page, 4],
    [page, 1],
    [0, 1],
    [6, 2],
    [16, 2],
    [5, 0],
  ] as const) {
    expect(() => allocator.free(first, pages)).toThrow(RangeError);
  }
});
