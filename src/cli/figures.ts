/** Figures as a person reads them. Pure. */

const units = ["B", "KiB", "MiB", "GiB", "TiB"];

/** `1.5 GiB`; three digits or fewer. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** `12 s`, `5 min`, `3.5 h`, `12 d`. */
export function formatAge(ms: number): string {
  const seconds = ms / 1_000;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 6_000) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3_600) return `${(seconds / 3_600).toFixed(1)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}
