/**
 * What the commands share that look after a server: they connect to the one that runs, and start none.
 */
import { type Airlock, connect } from "../client/client.ts";

/** The option that all of them have. */
export const socketOption = { socket: { type: "string" } } as const;

export const socketHelp = "  --socket PATH  the server's Unix socket (AIRLOCK_SOCKET, else the user's own)";

/**
 * Does something with the server that runs.
 *
 * @throws AirlockError `disconnected` where there is none.
 */
export async function withServer<T>(
  socket: string | undefined,
  name: string,
  action: (airlock: Airlock) => Promise<T>,
): Promise<T> {
  await using airlock = await connect({ name: `airlock ${name}`, ...(socket !== undefined && { socket }) });
  return await action(airlock);
}
