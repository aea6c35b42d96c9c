/**
 * The server's own cgroup, where it has one: found, judged, and made a place in which workers get cgroups of their own.
 *
 * Invariant: nothing is written outside of a cgroup that holds no process but this server. The kernel wants a cgroup with
 * limits for its children to hold no process itself, so the server moves to a leaf beside them, and back at its end.
 */
import { basename, dirname, join } from "node:path";
import { type Kernel, tryRead } from "./kernel.ts";

/** The controllers that limits are made with. */
const controllers = ["memory", "pids", "cpu"] as const;
export type Controller = (typeof controllers)[number];

/** What begins the names of all cgroups that a server makes; the number is the server's. */
const ownName = /^airlock-(\d+)-/;

/** Why there is no cgroup to use: the end of a sentence. */
export class NoCgroup extends Error {
  override readonly name = "NoCgroup";
}

export interface OwnCgroup {
  /** The folder that workers' cgroups are made in. */
  readonly path: string;
  /** What begins their names. */
  readonly prefix: string;
  readonly controllers: ReadonlySet<Controller>;
}

/**
 * Where this process is in the cgroup file system, by `/proc/self/cgroup` and `/proc/self/mountinfo`.
 *
 * @throws NoCgroup.
 */
export function cgroupPath(membership: string, mounts: string): string {
  // Version 2 is the hierarchy with number 0 and no named controllers.
  const [, path] = /^0::(.*)$/m.exec(membership) ?? [];
  if (path === undefined) throw new NoCgroup("this system has no cgroup v2");
  for (const line of mounts.split("\n")) {
    const [fields = "", source = ""] = line.split(" - ");
    if (!source.startsWith("cgroup2 ")) continue;
    const [, , , root = "/", mountPoint = ""] = fields.split(" ").map(unescaped);
    const isInside = root === "/" || path === root || path.startsWith(`${root}/`);
    if (!isInside || path.startsWith("/..")) continue;
    return join(mountPoint, root === "/" ? path : path.slice(root.length)).replace(/\/$/, "");
  }
  throw new NoCgroup("the server's cgroup is not mounted here");
}

/** A path as mountinfo writes it: blanks and backslashes are octal numbers. */
function unescaped(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/**
 * Makes the server's cgroup one in which workers can have cgroups, and removes what servers that are dead left there.
 *
 * @throws NoCgroup, with what keeps it; nothing has changed then.
 */
export function enterOwnCgroup(kernel: Kernel, pid: number): OwnCgroup {
  const membership = tryRead(kernel, "/proc/self/cgroup") ?? "";
  const current = cgroupPath(membership, tryRead(kernel, "/proc/self/mountinfo") ?? "");
  const prefix = `airlock-${pid}-`;
  const leaf = `${prefix}server`;
  // Another server of this process may be there already.
  const isThere = basename(current) === leaf;
  const path = isThere ? dirname(current) : current;
  if (!isThere) {
    const offered = checkOwn(kernel, path, pid);
    removeLeftovers(kernel, path, pid);
    moveToLeaf(kernel, path, join(path, leaf), pid, offered);
  }
  const enabled = words(tryRead(kernel, join(path, "cgroup.subtree_control")));
  return { path, prefix, controllers: new Set(controllers.filter((each) => enabled.includes(each))) };
}

/** Moves the server back out of its leaf, unless another server of this process still has workers there. */
export function leaveOwnCgroup(
  kernel: Kernel,
  { path, prefix }: Pick<OwnCgroup, "path" | "prefix">,
  pid: number,
): void {
  const leaf = `${prefix}server`;
  try {
    if (kernel.list(path).some((name) => name.startsWith(prefix) && name !== leaf)) return;
    for (const each of words(tryRead(kernel, join(path, "cgroup.subtree_control")))) {
      kernel.write(join(path, "cgroup.subtree_control"), `-${each}`);
    }
    kernel.write(join(path, "cgroup.procs"), String(pid));
    kernel.removeFolder(join(path, leaf));
  } catch {
    // Whoever delegated the cgroup may have taken it back, or put something else there: it is theirs then.
  }
}

/**
 * The controllers that the cgroup offers its children.
 *
 * @throws NoCgroup unless it is this server's alone.
 */
function checkOwn(kernel: Kernel, path: string, pid: number): Controller[] {
  const where = `the server's cgroup ${path}`;
  if (tryRead(kernel, join(path, "cgroup.events")) === undefined) {
    throw new NoCgroup(`${where} is the root of the hierarchy, which is the whole machine's`);
  }
  const type = tryRead(kernel, join(path, "cgroup.type"))?.trim();
  if (type !== "domain") throw new NoCgroup(`${where} is of the type ${JSON.stringify(type ?? "")}`);
  const inside = words(tryRead(kernel, join(path, "cgroup.procs")));
  if (inside.some((each) => each !== String(pid))) {
    throw new NoCgroup(
      `${where} holds other processes; a server started by "systemd-run --user --scope -p Delegate=yes" has its own`,
    );
  }
  const offered = words(tryRead(kernel, join(path, "cgroup.controllers")));
  const useful = controllers.filter((each) => offered.includes(each));
  if (useful.length === 0) throw new NoCgroup(`${where} offers neither memory nor pids nor cpu`);
  return useful;
}

function moveToLeaf(kernel: Kernel, path: string, leaf: string, pid: number, offered: readonly Controller[]): void {
  try {
    kernel.makeFolder(leaf);
    kernel.write(join(leaf, "cgroup.procs"), String(pid));
  } catch (error) {
    tryRemove(kernel, leaf);
    throw new NoCgroup(`the server's cgroup ${path} is not delegated to it: ${messageOf(error)}`);
  }
  const refusals: string[] = [];
  for (const each of offered) {
    try {
      kernel.write(join(path, "cgroup.subtree_control"), `+${each}`);
    } catch (error) {
      refusals.push(`${each}: ${messageOf(error)}`);
    }
  }
  if (refusals.length < offered.length) return;
  leaveOwnCgroup(kernel, { path, prefix: `airlock-${pid}-` }, pid);
  throw new NoCgroup(`the server's cgroup ${path} gives its children no controller: ${refusals.join(", ")}`);
}

/** Ends what is left in the cgroups of servers that are dead, one with this server's number among them, and removes them. */
function removeLeftovers(kernel: Kernel, path: string, pid: number): void {
  for (const name of kernel.list(path)) {
    const server = Number(ownName.exec(name)?.[1]);
    const isDead = server === pid || tryRead(kernel, `/proc/${server}/stat`) === undefined;
    if (Number.isNaN(server) || !isDead) continue;
    const folder = join(path, name);
    killAll(kernel, folder);
    // What was just killed may take a moment: then the next server finds it empty.
    tryRemove(kernel, folder);
  }
}

/** Ends all processes in a cgroup. */
export function killAll(kernel: Kernel, folder: string): void {
  try {
    kernel.write(join(folder, "cgroup.kill"), "1");
  } catch {
    // Before Linux 5.14 there is no such file, and after the end there is no cgroup.
    for (const pid of words(tryRead(kernel, join(folder, "cgroup.procs")))) kernel.kill(Number(pid));
  }
}

/** Removes a cgroup; false while something is in it. */
export function tryRemove(kernel: Kernel, folder: string): boolean {
  try {
    kernel.removeFolder(folder);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT";
  }
}

export function words(text: string | undefined): string[] {
  return (text ?? "").split(/\s+/).filter((word) => word !== "");
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
