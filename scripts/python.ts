/**
 * The Python environments that checks, tests and benchmarks run in, made by uv from hashed requirements and kept until
 * those change.
 */
import { createHash } from "node:crypto";
import { existsSync, lstatSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { findUv, uvVariables } from "../src/server/environments/uv.ts";
import { root } from "./steps.ts";

const requirements = join(root, "requirements", "dev.txt");

/** A CPU build by its local version: the plain one of PyPI would bring gigabytes of CUDA. */
export const torchRequirement = "torch==2.13.0+cpu";

export interface PythonEnvironment {
  readonly folder: string;
  /** The file of hashed requirements that it is made from. */
  readonly requirements: string;
  /** Requirements besides those, without hashes. */
  readonly extra?: readonly string[];
}

const testEnvironment: PythonEnvironment = { folder: join(root, ".venvs", "test"), requirements };
const torchEnvironment: PythonEnvironment = {
  folder: join(root, ".venvs", "torch"),
  requirements,
  extra: [torchRequirement],
};

/** A host's that has the real pyisolate, which `airlock launch` puts Airlock's in front of. */
export const pyisolateEnvironment: PythonEnvironment = {
  folder: join(root, ".venvs", "pyisolate"),
  requirements: join(root, "tests", "compat", "requirements.txt"),
  extra: [torchRequirement],
};

/** The environment with the tools and libraries of requirements/dev.txt; returns its folder. */
export async function makeTestEnvironment(): Promise<string> {
  const problem = await makeEnvironment(testEnvironment);
  if (problem !== undefined) throw new Error(`the test environment could not be made:\n${problem}`);
  return testEnvironment.folder;
}

/** The same with a CPU build of torch. `problem` says why there is none. */
export async function makeTorchEnvironment(): Promise<{ folder: string; problem: string | undefined }> {
  return { folder: torchEnvironment.folder, problem: await makeEnvironment(torchEnvironment) };
}

/** Whether it was made, and from what its requirements are now. */
export function isMade(environment: PythonEnvironment): boolean {
  const stamp = stampOf(environment);
  return existsSync(stamp) && readFileSync(stamp, "utf8") === hashOf(environment);
}

/** Makes an environment, unless it is there; returns why it can't be made where it can't. */
export async function makeEnvironment(environment: PythonEnvironment): Promise<string | undefined> {
  if (isMade(environment)) return undefined;
  const { folder, requirements, extra = [] } = environment;
  const link = [dirname(folder), folder].find(isLink);
  if (link !== undefined)
    return `${link} is a symbolic link: what it points to would be cleared; remove the link (rm ${link})`;
  rmSync(folder, { recursive: true, force: true });
  const python = join(folder, "bin", "python");
  const problem =
    (await uv(["venv", "--quiet", "--python", join(root, ".venv", "bin", "python"), folder])) ??
    (await uv(["pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", requirements])) ??
    (extra.length > 0 ? await uv(["pip", "install", "--quiet", "--python", python, ...extra]) : undefined);
  if (problem === undefined) writeFileSync(stampOf(environment), hashOf(environment));
  return problem;
}

function isLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true;
}

function stampOf({ folder }: PythonEnvironment): string {
  return join(folder, ".airlock");
}

function hashOf({ requirements, extra = [] }: PythonEnvironment): string {
  return createHash("sha256").update(readFileSync(requirements)).update(extra.join("\n")).digest("hex");
}

/** Runs uv; returns what it said where it failed. */
async function uv(args: readonly string[]): Promise<string | undefined> {
  const variables = uvVariables(process.env);
  // Where no folder of wheels is named, PyTorch's own index of CPU builds is asked.
  const torch = variables["UV_FIND_LINKS"] ? {} : { UV_TORCH_BACKEND: "cpu" };
  // Compiled once, and not by each import where PYTHONDONTWRITEBYTECODE is set: that doubles the time of torch's.
  const env = { ...variables, ...torch, UV_COMPILE_BYTECODE: "1" };
  const child = Bun.spawn([await findUv(), ...args], { cwd: root, env, stdio: ["ignore", "ignore", "pipe"] });
  const said = await new Response(child.stderr).text();
  return (await child.exited) === 0 ? undefined : said.trim();
}
