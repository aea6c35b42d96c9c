/**
 * A kernel in memory: processes with memory and children, their files in `/proc`, and a cgroup v2 hierarchy that holds its
 * members to their limits. As much of it as the limits look at; its texts have the form of the real ones.
 */
import type { Kernel } from "../../src/server/workers/limits/kernel.ts";

export const pageBytes = 4096;

interface FakeProcess {
  readonly pid: number;
  parent: number;
  group: number;
  session: number;
  /** What it maps; `sharedBytes` of that are other processes' too, and count as nothing in its PSS. */
  bytes: number;
  sharedBytes: number;
  cgroup: string;
}

interface Cgroup {
  readonly files: Map<string, string>;
}

export interface FakeKernelOptions {
  /** Controllers of the root; none means that there is no cgroup v2. */
  readonly controllers?: readonly string[];
  /** Whether this system tells of PSS. */
  readonly tellsPss?: boolean;
}

const mount = "/sys/fs/cgroup";

function failed(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}

export class FakeKernel implements Kernel {
  readonly serverPid: number;
  /** How often somebody looked at the processes, or into a cgroup. */
  looks = 0;
  /** How often somebody had it count what takes long to count. */
  counts = 0;
  readonly #options: FakeKernelOptions;
  readonly #processes = new Map<number, FakeProcess>();
  readonly #cgroups = new Map<string, Cgroup>();
  /** Files that refuse to be written, with the code that they refuse with. */
  readonly refused = new Map<string, string>();
  #lastPid = 100;

  /** @param serverPid the process that reads `/proc/self`. */
  constructor(serverPid: number, options: FakeKernelOptions = {}) {
    this.serverPid = serverPid;
    this.#options = options;
    this.#addCgroup("");
    this.#addCgroup("/own");
    this.spawn({ pid: serverPid, parent: 1, cgroup: "/own" });
  }

  /** The cgroups there are besides the root and the server's own, by their path in the hierarchy. */
  get cgroups(): string[] {
    return [...this.#cgroups.keys()].filter((path) => path !== "" && path !== "/own").sort();
  }

  isAlive(pid: number): boolean {
    return this.#processes.has(pid);
  }

  /** A new process, by default the server's child with a session of its own. */
  spawn(given: Partial<FakeProcess> = {}): number {
    const pid = given.pid ?? ++this.#lastPid;
    const parent = given.parent ?? this.serverPid;
    const cgroup = given.cgroup ?? this.#processes.get(parent)?.cgroup ?? "";
    this.#processes.set(pid, { parent, group: pid, session: pid, bytes: 0, sharedBytes: 0, ...given, pid, cgroup });
    return pid;
  }

  /** A child in its parent's group and session, which shares the parent's memory. */
  fork(parent: number): number {
    const { group, session, bytes } = this.#processOf(parent);
    return this.spawn({ parent, group, session, bytes, sharedBytes: bytes });
  }

  change(pid: number, change: Partial<FakeProcess>): void {
    Object.assign(this.#processOf(pid), change);
  }

  /** More memory for a process, which its cgroup may refuse, and end it for. */
  allocate(pid: number, bytes: number): void {
    const process = this.#processOf(pid);
    process.bytes += bytes;
    const cgroup = this.#cgroups.get(process.cgroup);
    const members = [...this.#processes.values()].filter((each) => each.cgroup === process.cgroup);
    const most = Number(cgroup?.files.get("memory.max") ?? Number.POSITIVE_INFINITY);
    if (members.reduce((sum, each) => sum + each.bytes - each.sharedBytes, 0) <= most) return;
    cgroup?.files.set("memory.events", `low 0\nhigh 0\nmax 7\noom 1\noom_kill ${members.length}\noom_group_kill 1\n`);
    for (const each of cgroup?.files.get("memory.oom.group") === "1" ? members : [process]) this.kill(each.pid);
  }

  #processOf(pid: number): FakeProcess {
    const process = this.#processes.get(pid);
    if (process === undefined) throw failed("ESRCH", String(pid));
    return process;
  }

  /** Ends a process; its children become those of process 1. */
  kill(pid: number): void {
    if (!this.#processes.delete(pid)) return;
    for (const each of this.#processes.values()) if (each.parent === pid) each.parent = 1;
  }

  killGroup(group: number): void {
    for (const each of [...this.#processes.values()]) if (each.group === group) this.kill(each.pid);
  }

  read(path: string): string {
    this.looks += 1;
    const inCgroup = this.#inCgroup(path);
    if (inCgroup !== undefined) return this.#readCgroup(...inCgroup);
    const [, , who = "", file = ""] = path.split("/");
    const text = this.#readProcess(this.#processOf(who === "self" ? this.serverPid : Number(who)), file);
    if (text === undefined) throw failed("ENOENT", path);
    return text;
  }

  #readProcess(process: FakeProcess, file: string): string | undefined {
    const { pid, parent, group, session, bytes, sharedBytes, cgroup } = process;
    if (file === "stat") {
      const zeros = Array.from({ length: 17 }, () => 0).join(" ");
      return `${pid} (a (name) of it) S ${parent} ${group} ${session} ${zeros} ${bytes / pageBytes} 0\n`;
    }
    if (file === "smaps_rollup" && this.#options.tellsPss !== false) {
      return `55a6-7ffc ---p 0 00:00 0 [rollup]\nRss: ${bytes / 1024} kB\nPss:    ${(bytes - sharedBytes) / 1024} kB\nPss_Dirty: 0 kB\n`;
    }
    const hasCgroups = this.#options.controllers !== undefined;
    if (file === "cgroup") return hasCgroups ? `0::${cgroup || "/"}\n` : "4:memory:/\n";
    if (file === "mountinfo")
      return `22 1 0:20 / /proc rw - proc proc rw\n31 23 0:28 / ${mount} rw - cgroup2 none rw\n`;
    return undefined;
  }

  async readLater(path: string): Promise<string> {
    this.counts += 1;
    return this.read(path);
  }

  list(path: string): string[] {
    this.looks += 1;
    if (path === "/proc") return [...[...this.#processes.keys()].map(String), "self", "meminfo"];
    const folder = path.slice(mount.length);
    const children = [...this.#cgroups.keys()].filter((each) => each.slice(0, each.lastIndexOf("/")) === folder);
    return ["cgroup.procs", ...children.map((each) => each.slice(folder.length + 1))];
  }

  write(path: string, text: string): void {
    const inCgroup = this.#inCgroup(path);
    const refusal = this.refused.get(path.split("/").at(-1) ?? "");
    if (refusal !== undefined || inCgroup === undefined) throw failed(refusal ?? "EACCES", path);
    const [folder, file] = inCgroup;
    const { files } = this.#cgroupOf(folder);
    if (file === "cgroup.procs") this.#move(Number(text), folder);
    else if (file === "cgroup.kill") for (const pid of this.#membersOf(folder)) this.kill(pid);
    else if (file === "cgroup.subtree_control") this.#enable(folder, text);
    else if (files.has(file)) files.set(file, text);
    else throw failed("ENOENT", path);
  }

  /** The rule of no internal processes: limits for the children, or processes. */
  #move(pid: number, folder: string): void {
    const { files } = this.#cgroupOf(folder);
    if (folder !== "" && (files.get("cgroup.subtree_control") ?? "") !== "") throw failed("EBUSY", folder);
    this.#processOf(pid).cgroup = folder;
  }

  #enable(folder: string, text: string): void {
    const { files } = this.#cgroupOf(folder);
    const enabled = new Set((files.get("cgroup.subtree_control") ?? "").split(" ").filter(Boolean));
    if (text.startsWith("-")) enabled.delete(text.slice(1));
    else if (this.#membersOf(folder).length > 0) throw failed("EBUSY", folder);
    else enabled.add(text.slice(1));
    files.set("cgroup.subtree_control", [...enabled].join(" "));
  }

  makeFolder(path: string): void {
    const folder = path.slice(mount.length);
    if (this.#cgroups.has(folder)) throw failed("EEXIST", path);
    if (this.refused.has("mkdir")) throw failed("EACCES", path);
    this.#addCgroup(folder);
  }

  removeFolder(path: string): void {
    const folder = path.slice(mount.length);
    if (!this.#cgroups.has(folder)) throw failed("ENOENT", path);
    if (this.#membersOf(folder).length > 0) throw failed("EBUSY", path);
    this.#cgroups.delete(folder);
  }

  #addCgroup(folder: string): void {
    const parent = this.#cgroups.get(folder.slice(0, folder.lastIndexOf("/")));
    const controllers =
      folder.lastIndexOf("/") <= 0
        ? (this.#options.controllers ?? [])
        : (parent?.files.get("cgroup.subtree_control") ?? "").split(" ");
    const files = new Map([
      ["cgroup.controllers", controllers.join(" ")],
      ["cgroup.subtree_control", ""],
    ]);
    if (folder !== "") {
      files.set("cgroup.type", "domain\n").set("cgroup.events", "populated 0\nfrozen 0\n").set("cgroup.kill", "");
      if (controllers.includes("memory")) {
        files.set("memory.max", "max").set("memory.oom.group", "0").set("memory.swap.max", "max");
        files.set("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n");
      }
      if (controllers.includes("pids")) files.set("pids.max", "max").set("pids.events", "max 0\n");
      if (controllers.includes("cpu")) files.set("cpu.max", "max 100000");
    }
    this.#cgroups.set(folder, { files });
  }

  #inCgroup(path: string): readonly [folder: string, file: string] | undefined {
    if (!path.startsWith(`${mount}/`)) return undefined;
    const end = path.lastIndexOf("/");
    return [path.slice(mount.length, end), path.slice(end + 1)];
  }

  #readCgroup(folder: string, file: string): string {
    if (file === "cgroup.procs") return this.#membersOf(folder).join("\n");
    const text = this.#cgroupOf(folder).files.get(file);
    if (text === undefined) throw failed("ENOENT", `${folder}/${file}`);
    return text;
  }

  #cgroupOf(folder: string): Cgroup {
    const cgroup = this.#cgroups.get(folder);
    if (cgroup === undefined) throw failed("ENOENT", folder);
    return cgroup;
  }

  #membersOf(folder: string): number[] {
    return [...this.#processes.values()].filter((each) => each.cgroup === folder).map((each) => each.pid);
  }
}
