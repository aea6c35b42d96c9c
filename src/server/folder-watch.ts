/** Whether a pack was edited since it was held. One look at a time, however many calls want to know. */
export class FolderWatch {
  readonly #stampOf: () => Promise<string>;
  #first: Promise<string> | undefined;
  #looking: Promise<boolean> | undefined;

  /** @param stampOf a text that changes when a file of the pack's does. */
  constructor(stampOf: () => Promise<string>) {
    this.#stampOf = stampOf;
  }

  /** Remembers how it is now. */
  begin(): void {
    this.#first = this.#stampOf();
  }

  /** Whether it is different from how it was at the last {@link begin}; joins a look that is under way. */
  isEdited(): Promise<boolean> {
    this.#looking ??= this.#look();
    return this.#looking;
  }

  async #look(): Promise<boolean> {
    const [before, now] = await Promise.all([this.#first, this.#stampOf()]);
    this.#looking = undefined;
    return before !== now;
  }
}
