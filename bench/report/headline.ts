/** The one picture that says most: what a call costs, and what a tensor costs over its size. For the README. */
import type { TopLevelSpec } from "vega-lite";
import type { Run } from "../results.ts";
import { dots, draw, lines, paletteOf, rowsFor } from "./plots.ts";

/** SVG; undefined where a run has neither. */
export async function headlinePicture(run: Run): Promise<string | undefined> {
  const measured = (scenario: string) => run.results.find((each) => each.scenario === scenario)?.measurements ?? [];
  const calls = rowsFor(
    measured("calls").filter(
      ({ condition, of, statistic }) => condition === "free" && of === "node's arguments" && statistic === "p50",
    ),
  );
  const transfers = rowsFor(measured("sizes").filter(({ statistic }) => statistic === "both"));
  const parts = [
    ...(calls.length > 0
      ? [{ ...dots(calls, "µs a call", paletteOf(run)), title: "A call with a node's arguments, there and back" }]
      : []),
    ...(transfers.length > 0
      ? [{ ...lines(transfers, "ms", paletteOf(run)), title: "1.0 - tensor in a worker, there and back" }]
      : []),
  ];
  if (parts.length === 0) return undefined;
  return await draw({ vconcat: parts, resolve: { scale: { color: "independent" } } } as TopLevelSpec);
}
