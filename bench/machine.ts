/** Where a run was made, and with what: for the reader of its figures. */
import { readFileSync } from "node:fs";
import { arch, cpus, loadavg, release, totalmem, type } from "node:os";
import { version } from "../src/version.ts";
import { outputOf, root } from "./processes.ts";
import { findRivals, isInstalled } from "./rivals.ts";

export function describeMachine(): Record<string, string> {
  const processors = cpus();
  return {
    processor: processors[0]?.model ?? "unknown",
    cores: String(processors.length),
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    system: `${type()} ${release()}, ${arch()}`,
    virtual: isVirtual() ? "yes" : "no",
    "load before": loadavg()
      .map((each) => each.toFixed(1))
      .join(" "),
  };
}

function isVirtual(): boolean {
  try {
    return / hypervisor( |$)/m.test(readFileSync("/proc/cpuinfo", "utf8"));
  } catch {
    return false;
  }
}

/** @param python the interpreter that contenders of this project's run in. */
export async function describeVersions(python: string): Promise<Record<string, string>> {
  const asked = "import platform, msgpack; print(platform.python_version(), '.'.join(map(str, msgpack.version)))";
  const [pythonVersion = "", msgpack = ""] = (await outputOf([python, "-c", asked])).trim().split(" ");
  const rivals = findRivals()
    .filter(isInstalled)
    .map(({ name }) => name);
  return {
    airlock: [version, await commit()].filter(Boolean).join(", "),
    Bun: Bun.version,
    Python: pythonVersion,
    msgpack,
    ...(rivals.length > 0 && { rivals: rivals.join(", ") }),
  };
}

/** The commit that is checked out, and whether files differ from it; empty outside of a clone. */
async function commit(): Promise<string> {
  const git = Bun.which("git");
  if (git === null) return "";
  const say = async (...args: string[]): Promise<string> => (await outputOf([git, "-C", root, ...args])).trim();
  try {
    const hash = await say("rev-parse", "--short", "HEAD");
    return (await say("status", "--porcelain", "--untracked-files=no")) === ""
      ? `commit ${hash}`
      : `commit ${hash}, changed`;
  } catch {
    return "";
  }
}
