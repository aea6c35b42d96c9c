/**
 * Which pages of a segment are free: best fit over free runs. Pure.
 *
 * Invariant: runs are sorted, and no two touch, so a segment that is empty has one.
 */

interface Run {
  page: number;
  pages: number;
}

export class PageAllocator {
  readonly #from: number;
  readonly #to: number;
  readonly #runs: Run[];
  #freePages: number;

  /** @param from the first page that may be given out; those before it are not the allocator's. */
  constructor(from: number, to: number) {
    this.#from = from;
    this.#to = to;
    this.#freePages = to - from;
    this.#runs = to > from ? [{ page: from, pages: to - from }] : [];
  }

  get freePages(): number {
    return this.#freePages;
  }

  /** Whether all pages are free. */
  get isEmpty(): boolean {
    return this.#freePages === this.#to - this.#from;
  }

  /** Takes pages that lie together, from the smallest run that has them; returns the first, or undefined. */
  allocate(pages: number): number | undefined {
    if (!Number.isSafeInteger(pages) || pages < 1) throw new RangeError(`a block has no ${pages} pages`);
    let best: Run | undefined;
    for (const run of this.#runs) {
      if (run.pages >= pages && (best === undefined || run.pages < best.pages)) best = run;
    }
    if (best === undefined) return undefined;
    const { page } = best;
    best.page += pages;
    best.pages -= pages;
    if (best.pages === 0) this.#runs.splice(this.#runs.indexOf(best), 1);
    this.#freePages -= pages;
    return page;
  }

  /**
   * Gives pages back.
   *
   * @throws RangeError where one of them is free, or not the allocator's: two owners would write to it.
   */
  free(page: number, pages: number): void {
    const after = this.#firstAfter(page);
    const [before, next] = [this.#runs[after - 1], this.#runs[after]];
    const isInside = page >= this.#from && page + pages <= this.#to && pages >= 1;
    const isTaken =
      (before === undefined || before.page + before.pages <= page) && (next?.page ?? this.#to) >= page + pages;
    if (!isInside || !isTaken) throw new RangeError(`pages ${page} to ${page + pages} are not all taken`);
    this.#freePages += pages;
    const joinsBefore = before !== undefined && before.page + before.pages === page;
    const joinsNext = next !== undefined && next.page === page + pages;
    if (joinsBefore) before.pages += pages;
    if (joinsNext && !joinsBefore) {
      next.page = page;
      next.pages += pages;
    }
    if (joinsNext && joinsBefore) {
      before.pages += next.pages;
      this.#runs.splice(after, 1);
    }
    if (!joinsNext && !joinsBefore) this.#runs.splice(after, 0, { page, pages });
  }

  /** Index of the first run that begins after a page. */
  #firstAfter(page: number): number {
    let [low, high] = [0, this.#runs.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#runs[middle]?.page ?? 0) <= page) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
