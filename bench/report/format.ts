/** Numbers as people read them. Pure. */
import type { Unit } from "../results.ts";
import type { Estimate } from "../statistics.ts";

/** With three significant digits, and no more than make sense: 0.0123, 4.56, 78.9, 12,300. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return "";
  const rounded = Number(value.toPrecision(3));
  return Math.abs(rounded) >= 10_000 ? rounded.toLocaleString("en-US") : String(rounded);
}

/** `0.19 – 0.24`; of one start there is none. */
export function formatBounds({ low, high }: Estimate): string {
  return low === undefined || high === undefined ? "one start" : `${formatNumber(low)} – ${formatNumber(high)}`;
}

export function formatEstimate(estimate: Estimate): string {
  return `${formatNumber(estimate.value)} (${formatBounds(estimate)})`;
}

/** `0.2 (0.19–0.24)`, for a table's cell; of one start there are no bounds. */
export function formatCell({ value, low, high }: Estimate): string {
  return `${formatNumber(value)}${low === undefined || high === undefined ? "" : ` (${formatNumber(low)}–${formatNumber(high)})`}`;
}

/** How a unit stands behind a title. */
export function unitText(unit: Unit): string {
  return unit === "×" ? "times" : unit;
}
