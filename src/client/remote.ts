/**
 * Objects of this process that a pack may use: what {@link remote} opens of one, and nothing else.
 */
import { AirlockError } from "../transport/errors.ts";
import { joinKeywords } from "./keywords.ts";

/** An object that crosses as a reference: a pack can read its public attributes and call its public methods. */
export class Remote {
  readonly object: object;
  /** The names that may be reached; missing for all public ones. */
  readonly names: readonly string[] | undefined;

  /** Use {@link remote}. */
  constructor(object: object, names: readonly string[] | undefined) {
    this.object = object;
    this.names = names;
  }
}

/**
 * Opens an object to the packs that it is passed to. It stays here; calls to it travel.
 *
 * @param names what may be reached of it. By default its own properties and what its class and the classes above that
 * define, without names that begin with `_` and what every object has.
 */
export function remote(object: object, ...names: string[]): Remote {
  if (typeof object !== "object" || object === null)
    throw new TypeError("remote() takes an object; functions cross as they are");
  for (const name of names)
    if (!isPublic(name)) throw new TypeError(`${JSON.stringify(name)} is no name that can be opened`);
  return new Remote(object, names.length > 0 ? names : undefined);
}

export function isSameOpening(one: Remote, other: Remote): boolean {
  return one.object === other.object && Bun.deepEquals(one.names, other.names);
}

/** What can be done with an opened object from outside. */
export class OpenedObject {
  readonly #object: object;
  readonly #names: ReadonlySet<string> | undefined;

  constructor({ object, names }: Remote) {
    this.#object = object;
    this.#names = names && new Set(names);
  }

  /** `[0, value]` of an attribute, or `[1, null]` for a method. */
  get(name: unknown): readonly [0 | 1, unknown] {
    const value = this.#reach(name);
    return typeof value === "function" ? [1, null] : [0, value];
  }

  invoke(name: unknown, args: readonly unknown[], keywords: Record<string, unknown>): unknown {
    const method = this.#reach(name);
    if (typeof method === "function") return method.apply(this.#object, joinKeywords(args, keywords));
    throw new AirlockError("bad_request", `${JSON.stringify(name)} of ${typeOf(this.#object)} is no method`);
  }

  #reach(name: unknown): unknown {
    if (typeof name === "string" && isPublic(name) && this.#isOpen(name)) {
      return (this.#object as Record<string, unknown>)[name];
    }
    const what = `${JSON.stringify(name) ?? "nothing"} of ${typeOf(this.#object)}`;
    throw new AirlockError("bad_request", `${what} is not open to other processes`, {
      hint: "only public attributes and methods can be reached, or those that remote() was given",
    });
  }

  #isOpen(name: string): boolean {
    if (this.#names !== undefined) return this.#names.has(name);
    for (let at: object | null = this.#object; at !== null && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
      if (Object.hasOwn(at, name)) return true;
    }
    return false;
  }
}

/** What every object and class has would lead from any of them to the whole process. */
const reservedNames: ReadonlySet<string> = new Set(["constructor", "prototype"]);

function isPublic(name: string): boolean {
  return name !== "" && !name.startsWith("_") && !reservedNames.has(name);
}

/** What a value is, for people. */
export function typeOf(value: object): string {
  const name = typeof value === "function" ? value.name : value.constructor?.name;
  return `javascript:${(name || "anonymous").toWellFormed()}`;
}
