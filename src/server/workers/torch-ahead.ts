/** Has a host's torch imported before a pack asks for it, while the host imports its own. */
import type { Variables } from "../../transport/address.ts";
import type { Clock } from "../../transport/clock.ts";
import { probeSharedTorch } from "../environments/shared-torch.ts";
import type { ForkServers } from "./fork-servers.ts";
import { commonVariables, sharedTorchVariable } from "./variables.ts";

export interface TorchAhead {
  /** The host's Python: a path, or a name on PATH. */
  readonly python: string;
  readonly inherited: Variables;
  readonly clock: Clock;
  readonly forkServers: ForkServers;
}

/** @throws Error where that Python is none, or has no torch. */
export async function importTorchAhead({ python, inherited, clock, forkServers }: TorchAhead): Promise<void> {
  const path = Bun.which(python, { PATH: inherited["PATH"] ?? "" });
  if (path === null) throw new Error(`there is no program ${JSON.stringify(python)}`);
  const variables = commonVariables(inherited);
  const { torch } = await probeSharedTorch(path, { pack: "of a host to come", variables, clock });
  forkServers.warm(torch.executable, { ...variables, ...sharedTorchVariable(torch) });
}
