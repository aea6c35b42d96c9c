/**
 * A lock between processes, as environments need it: they say what they rely on, and whoever composes the server
 * provides it (flock in practice, a map in tests).
 */

/** A lock that is held until {@link HeldLock.release} is called or the process ends, however it ends. */
export interface HeldLock {
  release(): void;
}

/**
 * Waits for the exclusive lock on the file at `path`, which is nothing but the lock's; its folder exists. A signal that
 * has aborted already makes it try once.
 *
 * @throws AirlockError `cancelled` if `signal` aborts while waiting
 */
export type FileLock = (path: string, signal: AbortSignal) => Promise<HeldLock>;
