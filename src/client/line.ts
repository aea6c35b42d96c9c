/**
 * A line: a socket pair straight to one worker, which the server made and handed to both.
 *
 * The same frames as on the relay. Its end is the worker's: the server knows how that died, and is asked before the calls
 * under way fail. Twin of `worker/src/comfy_airlock/host/lines.py`.
 */
import type { Clock } from "../transport/clock.ts";
import { Connection } from "../transport/connection.ts";
import type { AirlockError } from "../transport/errors.ts";
import type { Limits } from "../transport/limits.ts";
import { Channel } from "./channel.ts";
import { Unsent } from "./outgoing-calls.ts";
import { StreamOutlet } from "./outlet.ts";
import type { Pair } from "./pair.ts";
import { openStream } from "./stream.ts";

export interface LineOptions {
  /** The host's end of the socket pair. */
  readonly descriptor: number;
  readonly clock: Clock;
  readonly limits: Limits;
  /** Asks the server why the worker on this line has ended. */
  ending(): Promise<AirlockError>;
  /** Tells the server that the worker has not answered for long what was given up. */
  overdue(): void;
  /** The line is at its end; comes before any call on it fails. */
  onEnd(): void;
}

export class Line {
  readonly channel: Channel;
  readonly #connection: Connection;

  private constructor(channel: Channel, connection: Connection) {
    this.channel = channel;
    this.#connection = connection;
  }

  /** Joins a pair to the worker at the other end. */
  static async open(pair: Pair, options: LineOptions): Promise<Line> {
    const end = await openStream(options.descriptor, (socket) => {
      const connection: Connection = new Connection(socket, options.limits, {
        onFrame: (frame) => channel.receive(frame),
        onBroken: (cause) => connection.abort(cause),
        onClose: () => void finish(channel, options),
      });
      const outlet = new StreamOutlet(connection);
      const channel = new Channel({
        isLine: true,
        outlet,
        clock: options.clock,
        limits: options.limits,
        recipientOf: () => pair,
        onOverdue: () => options.overdue(),
      });
      return { connection, channel, onDrain: () => outlet.flush() };
    });
    return new Line(end.channel, end.connection);
  }

  /** Ends it from this side; calls under way fail with `reason`. */
  close(reason: AirlockError): void {
    this.channel.end(reason);
    this.#connection.abort(reason);
  }
}

async function finish(channel: Channel, { onEnd, ending }: LineOptions): Promise<void> {
  onEnd();
  channel.beginEnd(new Unsent("the line ended before the call was sent"));
  if (channel.calls.size > 0) channel.end(await ending());
}
