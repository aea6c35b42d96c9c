/**
 * Whether an output may be linked to an input, by the names of their types.
 *
 * The rule is ComfyUI's: comma-separated unions fit where they overlap, and `*` fits anything. Values are not looked at.
 * One rule is looser: a COMBO output fits any combo input, since lists of values are not compared.
 */

/** The type of an input: a name, a union such as `FLOAT,INT`, or a combo's list of values. */
export type InputType = string | readonly unknown[];

/** Whether an output of type `outputType` may feed an input of type `inputType`. */
export function typesFit(outputType: string, inputType: InputType): boolean {
  const offered = members(outputType);
  const accepted = members(typeof inputType === "string" ? inputType : "COMBO");
  return offered.has("*") || accepted.has("*") || !offered.isDisjointFrom(accepted);
}

/** The type as a message names it. */
export function describeType(type: InputType): string {
  return typeof type === "string" ? type : "COMBO";
}

function members(type: string): Set<string> {
  return new Set(type.split(",").map((member) => member.trim()));
}
