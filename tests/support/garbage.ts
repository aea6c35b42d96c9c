/** What becomes garbage, for tests that wait for it. */
import { test } from "bun:test";
import { until } from "./until.ts";

/** Collects garbage until `condition` holds; fails with `what` after ten seconds. */
export async function collected(condition: () => boolean, what: string): Promise<void> {
  await until(() => {
    Bun.gc(true);
    return condition();
  }, what);
}

/**
 * A test that needs an object to be found to be garbage; it is run up to three times.
 *
 * The engine takes whatever lies on its stacks for a reference, old words too: of 12,000 functions that nothing held 42
 * stayed through 200 collections and more. What is really held stays in all three runs.
 */
export function garbageTest(name: string, run: () => Promise<void>): void {
  test(name, run, { retry: 2 });
}
