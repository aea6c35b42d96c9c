/** Waiting for what happens by itself, for tests that know no better sign of it. */

/** Waits until `condition` holds; fails with `what` after ten seconds. */
export async function until(condition: () => boolean | Promise<boolean>, what: string | (() => string)): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!(await condition())) {
    if (performance.now() > deadline)
      throw new Error(`waited in vain until ${typeof what === "string" ? what : what()}`);
    await Bun.sleep(5);
  }
}

/**
 * Collects garbage until `condition` holds; fails with `what` after ten seconds.
 *
 * Code that was compiled beside the main thread keeps the values that it was last seen with until it is called again, so
 * that some of what nothing holds stays. `npm test` has unit and conformance tests compile in turn
 * (BUN_JSC_useConcurrentJIT=0); elsewhere a test that needs this is {@link retried}.
 */
export async function collected(condition: () => boolean, what: string): Promise<void> {
  await until(() => {
    Bun.gc(true);
    return condition();
  }, what);
}

/** For a test that fails where the engine keeps what it need not: whatever is really kept, is kept each time. */
export const retried = { retry: 2 } as const;
