/** How much of each scenario contenders do: what they are told. */

const MiB = 2 ** 20;
const GiB = 2 ** 30;

/** The second word of a contender's command line, as JSON; contenders/harness has what each means. */
export interface Parameters {
  /** Calls at most, and seconds that they may take: slow contenders make fewer. */
  readonly calls: number;
  readonly seconds: number;
  /** The largest tensor. */
  readonly bytes: number;
  /** How often large ones are sent. */
  readonly times: number;
  /** Once a transfer takes so long, larger ones are not tried. */
  readonly slow_seconds: number;
  /** How long there is rest before memory is looked at. */
  readonly rest_seconds: number;
  /** Sizes of what is sent again, or copied. */
  readonly sizes: readonly number[];
  /** How many hosts there are at once. */
  readonly hosts: readonly number[];
}

const full: Parameters = {
  ...{ calls: 3_000, seconds: 0.5, bytes: GiB, times: 5 },
  ...{ slow_seconds: 1, rest_seconds: 1, sizes: [64 * 1024, MiB, 16 * MiB, GiB], hosts: [1, 2, 4, 8] },
};

const smoke: Parameters = {
  ...{ calls: 50, seconds: 0.1, bytes: 2 * MiB, times: 1 },
  ...{ slow_seconds: 0.5, rest_seconds: 0.05, sizes: [64 * 1024], hosts: [1, 2] },
};

/** What differs between scenarios, of a full run. */
const special: Readonly<Record<string, Partial<Parameters>>> = {
  inflight: { calls: 20_000 },
  sizes: { bytes: 4 * GiB, seconds: 0.1 },
  chain: { seconds: 0.3 },
  shapes: { seconds: 0.5 },
  again: { times: 500 },
  small: { times: 30 },
  copies: { times: 60, sizes: [16 * MiB, 64 * MiB, GiB] },
  mappings: { times: 500, sizes: [64 * 1024, MiB, 16 * MiB] },
};

export function parametersOf(scenario: string, isSmoke: boolean): Parameters {
  return isSmoke ? smoke : { ...full, ...special[scenario] };
}
