/** What went wrong, as a value that a test can look at. */
import { AirlockError } from "../../src/transport/errors.ts";

/** The {@link AirlockError} that `action` throws; anything else it does fails the test. */
export function thrownBy(action: () => unknown): AirlockError {
  try {
    action();
  } catch (error) {
    if (error instanceof AirlockError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

/** The {@link AirlockError} that `promise` rejects with; anything else it does fails the test. */
export async function rejectionOf(promise: Promise<unknown>): Promise<AirlockError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof AirlockError) return error;
    throw error;
  }
  throw new Error("the promise was kept");
}
