/**
 * Checks the value of a widget against the input's declaration, and converts it as ComfyUI does.
 *
 * A value that passes is what the node receives. Ranges are inclusive. Links, and values for inputs that the class
 * doesn't declare, never come here.
 */
import { Float } from "../transport/values.ts";
import { nearNames } from "./near-names.ts";
import { isNumeric, pythonEquals, toPythonBool, toPythonFloat, toPythonInt, toPythonText } from "./python-scalar.ts";
import type { InputType } from "./socket-type.ts";

/** An input's declaration, taken apart. */
export interface InputSpec {
  readonly type: InputType;
  readonly options: Readonly<Record<string, unknown>>;
}

export type LiteralCheck =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly message: string; readonly hint?: string };

export interface LiteralOptions {
  /** The class checks this input by itself, so that ranges and combo lists don't bind. */
  readonly selfChecked: boolean;
}

/** Longer combo lists, mostly scans of model folders, aren't printed. */
const listedValuesMax = 20;
const shownValueCharsMax = 80;

/** Takes a declared input `[type, options?]` apart. */
export function readInputSpec(entry: readonly unknown[]): InputSpec {
  const [type, options] = entry;
  return {
    type: typeof type === "string" || Array.isArray(type) ? type : "*",
    options: typeof options === "object" && options !== null ? { ...options } : {},
  };
}

export function checkLiteral(given: unknown, spec: InputSpec, { selfChecked }: LiteralOptions): LiteralCheck {
  const unwrapped = unwrap(given);
  if (Array.isArray(unwrapped) && unwrapped === given) {
    return {
      ok: false,
      message: `${show(given)} is neither a value nor a link ["node id", output index]`,
      hint: 'write a list that is a value as {"__value__": [...]}',
    };
  }
  const value = convert(unwrapped, spec.type);
  if (value === undefined)
    return { ok: false, message: `${show(unwrapped)} can't be converted to ${String(spec.type)}` };
  const fault = selfChecked ? undefined : (rangeFault(value, spec.options) ?? comboFault(value, spec));
  if (fault !== undefined) return { ok: false, ...fault };
  // A plain whole number would reach the node as an int.
  const isWholeFloat = spec.type === "FLOAT" && typeof value === "number" && Number.isInteger(value);
  return { ok: true, value: isWholeFloat ? new Float(value) : value };
}

/** ComfyUI's front end wraps a value that is a list, as a bare list would look like a link. */
function unwrap(value: unknown): unknown {
  const isWrapper = typeof value === "object" && value !== null && Object.hasOwn(value, "__value__");
  return isWrapper ? Reflect.get(value, "__value__") : value;
}

function convert(value: unknown, type: InputType): unknown {
  switch (type) {
    case "INT":
      return toPythonInt(value);
    case "FLOAT":
      return toPythonFloat(value);
    case "STRING":
      return toPythonText(value);
    case "BOOLEAN":
      return toPythonBool(value);
    default:
      return value;
  }
}

interface Fault {
  readonly message: string;
  readonly hint?: string;
}

function rangeFault(value: unknown, { min, max }: Readonly<Record<string, unknown>>): Fault | undefined {
  if (!isNumeric(value)) return undefined;
  if (isNumeric(min) && value < min) return { message: `${show(value)} is below the minimum of ${show(min)}` };
  if (isNumeric(max) && value > max) return { message: `${show(value)} is above the maximum of ${show(max)}` };
  return undefined;
}

function comboFault(value: unknown, spec: InputSpec): Fault | undefined {
  const offered = comboValues(spec);
  if (offered === undefined) return undefined;
  const chosen = spec.options["multiselect"] === true && Array.isArray(value) ? value : [value];
  const strange = chosen.find((one) => !offered.some((other) => pythonEquals(one, other)));
  if (strange === undefined) return undefined;
  const listing =
    offered.length === 0
      ? "the list of its values is empty"
      : offered.length > listedValuesMax
        ? `it is none of the ${offered.length} values of this input`
        : `the values are ${offered.map(show).join(", ")}`;
  const near =
    typeof strange === "string"
      ? nearNames(
          strange,
          offered.filter((one) => typeof one === "string"),
        )
      : [];
  const message = `${show(strange)} is not in the list; ${listing}`;
  return near.length === 0 ? { message } : { message, hint: `did you mean ${near.map(show).join(" or ")}?` };
}

/** The values to choose from; undefined where any will do, as where a combo is filled by the front end. */
function comboValues({ type, options }: InputSpec): readonly unknown[] | undefined {
  if (typeof type !== "string") return type;
  const values = options["options"];
  return type === "COMBO" && Array.isArray(values) && options["remote"] === undefined ? values : undefined;
}

function show(value: unknown): string {
  const text = typeof value === "bigint" ? String(value) : (JSON.stringify(value, bigintAsText) ?? String(value));
  return text.length <= shownValueCharsMax ? text : `${text.slice(0, shownValueCharsMax)}…`;
}

function bigintAsText(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}
