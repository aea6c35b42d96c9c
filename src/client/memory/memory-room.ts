/**
 * How much memory there is left: what the machine has available, and what the control groups of this process allow.
 * Reads files of the kernel's and nothing else.
 */
import { readFileSync } from "node:fs";

/** The text of a file; undefined where it can't be read. */
export type ReadText = (path: string) => string | undefined;

export const readKernelFile: ReadText = (path) => {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
};

/** What bounds the memory that can be taken. */
export interface Room {
  readonly bytes: number;
  /** What it is that has no more, for people. */
  readonly of: string;
}

/** The tightest of all bounds; without any, where the system tells none. */
export function memoryRoom(read: ReadText = readKernelFile): Room {
  const bounds = [machineRoom(read), ...groupRooms(read)].filter((room) => room !== undefined);
  const unbounded: Room = { bytes: Number.POSITIVE_INFINITY, of: "the machine" };
  return bounds.reduce((least, room) => (room.bytes < least.bytes ? room : least), unbounded);
}

/** All the memory of the machine, or undefined where it does not say. */
export function machineBytes(read: ReadText = readKernelFile): number | undefined {
  return fieldOf(read("/proc/meminfo"), /^MemTotal:\s+(\d+) kB/m, 1024);
}

function machineRoom(read: ReadText): Room | undefined {
  const bytes = fieldOf(read("/proc/meminfo"), /^MemAvailable:\s+(\d+) kB/m, 1024);
  return bytes === undefined ? undefined : { bytes, of: "the machine" };
}

function fieldOf(text: string | undefined, pattern: RegExp, unit = 1): number | undefined {
  const found = pattern.exec(text ?? "")?.[1];
  return found === undefined ? undefined : Number(found) * unit;
}

/** The names of the files of one version of control groups. */
interface GroupFiles {
  readonly root: string;
  readonly limit: string;
  readonly usage: string;
  /** Memory that counts as used and that the kernel takes back before anything fails. */
  readonly reclaimable: RegExp;
}

const versionTwo: GroupFiles = {
  root: "/sys/fs/cgroup",
  limit: "memory.max",
  usage: "memory.current",
  reclaimable: /^inactive_file (\d+)/m,
};
const versionOne: GroupFiles = {
  root: "/sys/fs/cgroup/memory",
  limit: "memory.limit_in_bytes",
  usage: "memory.usage_in_bytes",
  reclaimable: /^total_inactive_file (\d+)/m,
};

function groupRooms(read: ReadText): (Room | undefined)[] {
  const lines = (read("/proc/self/cgroup") ?? "").split("\n");
  return lines.flatMap((line) => {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (path === undefined || controllers === undefined) return [];
    if (controllers === "") return upwards(path).map((each) => groupRoom(read, versionTwo, each));
    return controllers.split(",").includes("memory")
      ? upwards(path).map((each) => groupRoom(read, versionOne, each))
      : [];
  });
}

/** A group and those that it is in; in a container the outermost that can be seen is called `/`. */
function upwards(path: string): string[] {
  const names = path.split("/").filter((name) => name !== "" && name !== "..");
  return Array.from({ length: names.length + 1 }, (_, index) => `/${names.slice(0, names.length - index).join("/")}`);
}

function groupRoom(read: ReadText, files: GroupFiles, path: string): Room | undefined {
  const folder = path === "/" ? files.root : `${files.root}${path}`;
  const limit = fieldOf(read(`${folder}/${files.limit}`), /^(\d+)\s*$/);
  const usage = fieldOf(read(`${folder}/${files.usage}`), /^(\d+)\s*$/);
  if (limit === undefined || usage === undefined) return undefined;
  const reclaimable = fieldOf(read(`${folder}/memory.stat`), files.reclaimable) ?? 0;
  return { bytes: Math.max(0, limit - usage + reclaimable), of: `the control group ${path}` };
}
