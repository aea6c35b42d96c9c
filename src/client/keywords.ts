/**
 * Python's keyword arguments, where JavaScript has none: the last argument of a call, as an object of this class.
 */

/**
 * `await resize(image, new Keywords({ width: 512 }))` calls `resize(image, width=512)`. A function here that is called
 * with keywords gets them the same way, and may read them like any object of options.
 */
export class Keywords {
  readonly [name: string]: unknown;

  constructor(keywords: Readonly<Record<string, unknown>>) {
    Object.assign(this, keywords);
  }
}

/** Positional arguments, and the keywords that stand behind them. */
export function splitKeywords(args: readonly unknown[]): [positional: unknown[], keywords: Record<string, unknown>] {
  const last = args.at(-1);
  return last instanceof Keywords ? [args.slice(0, -1), { ...last }] : [[...args], {}];
}

/** The twin of {@link splitKeywords}: nothing is added where there are none. */
export function joinKeywords(args: readonly unknown[], keywords: Record<string, unknown>): unknown[] {
  return Object.keys(keywords).length === 0 ? [...args] : [...args, new Keywords(keywords)];
}
