/**
 * The public interface of comfy-airlock for Bun: embed a server, connect a client, and the values and errors that cross.
 */
export type { CallOptions } from "./client/call-options.ts";
export { Airlock, type ConnectOptions, connect } from "./client/client.ts";
export { type CurrentCall, currentCall, type ProgressReport } from "./client/incoming-call.ts";
export { Keywords } from "./client/keywords.ts";
export type { Pack } from "./client/pack.ts";
export type { EventListener } from "./client/pack-listeners.ts";
export { type Remote, remote } from "./client/remote.ts";
export { type RemoteFunction, RemoteIterator, RemoteObject } from "./client/stand-ins.ts";
export type { ServerEvent } from "./server/events.ts";
export { type ServeOptions, type Server, serve } from "./server/serve.ts";
export type { LogRecord, PackDescription, PrepareResult, Progress, Status } from "./transport/control.ts";
export {
  AirlockError,
  type ErrorCode,
  type ErrorDetails,
  errorCodes,
  type RemoteException,
} from "./transport/errors.ts";
export { defaultLimits, type Limits } from "./transport/limits.ts";
export type { TypedArray } from "./transport/typed-view.ts";
export {
  type ArrayKind,
  type ArrayOrder,
  Complex,
  Float,
  FrozenSet,
  Named,
  NdArray,
  RawValue,
  Tuple,
} from "./transport/values.ts";
export { version } from "./version.ts";
