/**
 * What a callback throws, as an error that crosses: Airlock's own as they are, anything else as a remote exception.
 */
import { encode } from "../transport/codec.ts";
import { AirlockError, errorToWire, type RemoteException } from "../transport/errors.ts";

/** Where JavaScript's classes are, for a receiver that knows classes by module and name. */
const moduleName = "javascript";

/** The body of an ERROR frame. What an exception holds that cannot cross is left out: the error must arrive. */
export function errorBody(thrown: unknown): Uint8Array {
  const error = thrown instanceof AirlockError ? thrown : remoteException(thrown);
  try {
    return encode(errorToWire(error));
  } catch {
    const { exception: _, ...details } = error.details;
    return encode(errorToWire(new AirlockError(error.code, error.message, details)));
  }
}

function remoteException(thrown: unknown): AirlockError {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  const exception: RemoteException = {
    types: classNames(error),
    message: error.message.toWellFormed(),
    traceback: (error.stack ?? "").toWellFormed(),
    args: [error.message.toWellFormed()],
  };
  return new AirlockError("remote_exception", `${error.name}: ${error.message}`, { exception }, { cause: thrown });
}

/** From its own class upwards; what every error is says nothing of this one. */
function classNames(error: Error): string[] {
  const names: string[] = [];
  for (let at: unknown = Object.getPrototypeOf(error); at instanceof Error; at = Object.getPrototypeOf(at)) {
    names.push(`${moduleName}:${at.constructor.name.toWellFormed()}`);
  }
  return names.length > 0 ? names : [`${moduleName}:Error`];
}
