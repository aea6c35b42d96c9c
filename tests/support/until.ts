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
