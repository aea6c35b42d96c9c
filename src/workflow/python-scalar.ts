/**
 * Python's `int()`, `float()`, `str()` and `bool()` for the values that JSON can hold.
 *
 * ComfyUI passes every widget value through one of them before a node sees it, so `"5"` is fine for an INT and `5.7`
 * becomes 5. Each answers undefined where Python raises. Lists and objects have no `str()` here: Python's notation for
 * them is nothing a person wants in a text field.
 */

const integerPattern = /^[+-]?\d+(?:_\d+)*$/;
const decimalPattern = /^[+-]?(?:\d+(?:_\d+)*\.?(?:\d+(?:_\d+)*)?|\.\d+(?:_\d+)*)(?:e[+-]?\d+(?:_\d+)*)?$/i;
const infinitePattern = /^[+-]?inf(?:inity)?$/i;
const nanPattern = /^[+-]?nan$/i;

/** `int(value)`; a bigint where a number would lose digits. */
export function toPythonInt(value: unknown): number | bigint | undefined {
  if (typeof value === "boolean") return value ? 1 : 0;
  if (typeof value === "bigint") return compact(value);
  if (typeof value === "number") return Number.isFinite(value) ? compact(BigInt(Math.trunc(value))) : undefined;
  if (typeof value !== "string") return undefined;
  const text = value.trim();
  if (!integerPattern.test(text)) return undefined;
  const magnitude = BigInt(text.replace(/^[+-]/, "").replaceAll("_", ""));
  return compact(text.startsWith("-") ? -magnitude : magnitude);
}

/** `float(value)`. */
export function toPythonFloat(value: unknown): number | undefined {
  if (typeof value === "boolean") return value ? 1 : 0;
  if (typeof value === "number") return value;
  if (typeof value === "bigint") {
    const number = Number(value);
    return Number.isFinite(number) ? number : undefined;
  }
  if (typeof value !== "string") return undefined;
  const text = value.trim();
  if (decimalPattern.test(text)) return Number(text.replaceAll("_", ""));
  if (nanPattern.test(text)) return Number.NaN;
  if (!infinitePattern.test(text)) return undefined;
  return text.startsWith("-") ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
}

/** `str(value)`, for scalars. */
export function toPythonText(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  return undefined;
}

/** `bool(value)`: what is zero or empty is false, and the text `"false"` is true. */
export function toPythonBool(value: unknown): boolean {
  if (typeof value === "number") return value !== 0;
  if (Array.isArray(value)) return value.length > 0;
  if (typeof value === "object" && value !== null) return Object.keys(value).length > 0;
  return Boolean(value);
}

/** `a == b` for scalars: numbers and booleans compare by value. */
export function pythonEquals(a: unknown, b: unknown): boolean {
  if (isNumeric(a) && isNumeric(b)) return numeric(a) === numeric(b);
  return a === b;
}

/** Whether Python would count the value as a number. */
export function isNumeric(value: unknown): value is number | bigint | boolean {
  return typeof value === "number" || typeof value === "bigint" || typeof value === "boolean";
}

function numeric(value: number | bigint | boolean): number | bigint {
  return typeof value === "bigint" ? compact(value) : Number(value);
}

function compact(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
