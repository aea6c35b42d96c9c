/**
 * Sets up a fresh clone: Bun and the packages of bun.lock, and uv in a Python environment of the project's own.
 *
 * Plain Node.js, as nothing else is there yet. Each part is skipped where it is up to date, told by a stamp that holds
 * the hash of what it was made from.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, lstatSync, mkdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findBun, packageFolder } from "./bun.mjs";

const pythonMinors = { min: 10, max: 13 };

/** Says what is wrong and what to do, and ends. */
function fail(message, hint) {
  console.error(`setup: ${message}\n→ ${hint}`);
  process.exit(1);
}

/** Runs a step; its output is shown only where it fails. */
function run(what, command, args, options = {}) {
  console.error(`setup: ${what} …`);
  const result = spawnSync(command, args, { cwd: packageFolder, encoding: "utf8", maxBuffer: 1 << 28, ...options });
  if (result.status === 0) return result.stdout;
  const said = [result.stdout, result.stderr, result.error?.message].filter(Boolean).join("\n");
  fail(
    `${what} failed:\n${said.trim()}`,
    "the lines above are the tool's own; most often the network was out of reach",
  );
}

function hashOf(files, ...more) {
  const hash = createHash("sha256");
  for (const file of files) hash.update(readFileSync(join(packageFolder, file)));
  return hash.update(more.join("\0")).digest("hex");
}

/** Does `make` unless the stamp says that it was done for the same inputs, or one of `alsoGood`. */
function upToDate(stamp, hash, make, alsoGood = []) {
  const path = join(packageFolder, stamp);
  const before = existsSync(path) ? readFileSync(path, "utf8") : undefined;
  if (before !== undefined && [hash, ...alsoGood].includes(before)) return;
  make();
  writeFileSync(path, hash);
}

/** Bun of the pinned version and the packages of bun.lock; with the tools for development where `dev`. */
export function setUpPackages({ dev }) {
  const inputs = hashOf(["package.json", "bun.lock"]);
  const withTools = `${inputs} with the tools for development`;
  const install = () => {
    const args = ["install", "--frozen-lockfile", "--ignore-scripts", ...(dev ? [] : ["--production"])];
    run("installing packages", findBun() ?? bootstrapBun(), args);
  };
  const stamp = join("node_modules", ".airlock");
  if (findBun() === undefined) rmSync(join(packageFolder, stamp), { force: true });
  // Whoever develops here keeps the tools when running the main job.
  upToDate(stamp, dev ? withTools : inputs, install, [withTools]);
  rmSync(join(packageFolder, ".airlock", "bootstrap"), { recursive: true, force: true });
  return findBun() ?? failWithoutBun();
}

function failWithoutBun() {
  const builds = "Bun was installed, but none of its builds for Linux on x64 or arm64 came with it";
  fail(
    builds,
    `this machine is ${process.platform} on ${process.arch}; on one of those, remove node_modules and try again`,
  );
}

/** A Bun to install the locked packages with. bun.lock then has the hashes of all that is used from there on. */
function bootstrapBun() {
  const { dependencies } = JSON.parse(readFileSync(join(packageFolder, "package.json"), "utf8"));
  const folder = join(packageFolder, ".airlock", "bootstrap");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), '{ "private": true }\n');
  const args = [
    "install",
    "--no-package-lock",
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    `bun@${dependencies.bun}`,
  ];
  run("fetching Bun", "npm", args, { cwd: folder });
  return findBun(folder) ?? failWithoutBun();
}

/** uv, from PyPI by hash, in `.venv`. Returns its path. */
export function setUpUv() {
  const python = findPython();
  upToDate(join(".venv", ".airlock"), hashOf(["requirements/uv.txt"], python), () => {
    refuseLink(".venv");
    run("making .venv", python, ["-m", "venv", "--clear", ".venv"]);
    const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"];
    run("installing uv", join(packageFolder, ".venv", "bin", "python"), [...pip, "-r", "requirements/uv.txt"]);
  });
  return join(packageFolder, ".venv", "bin", "uv");
}

/** Ends where the folder is a link: making it afresh would clear a folder that others may use. */
function refuseLink(folder) {
  const path = join(packageFolder, folder);
  if (!lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink()) return;
  fail(
    `${path} is a symbolic link to ${readlinkSync(path)}, and no longer up to date; making it afresh would clear what it points to`,
    `remove the link: rm ${path}`,
  );
}

/** The first Python that can make the project's environment: AIRLOCK_PYTHON, then the usual names. */
function findPython() {
  const named = process.env.AIRLOCK_PYTHON;
  const minors = Array.from(
    { length: pythonMinors.max - pythonMinors.min + 1 },
    (_, index) => pythonMinors.max - index,
  );
  const names = named ? [named] : ["python3", ...minors.map((minor) => `python3.${minor}`), "python"];
  const seen = [];
  for (const name of names) {
    const code = "import sys, venv, ensurepip; print(sys.version_info[0], sys.version_info[1], sys.executable)";
    const { status, stdout, stderr } = spawnSync(name, ["-c", code], { encoding: "utf8" });
    if (status !== 0) {
      if (stderr?.includes("ModuleNotFoundError")) seen.push(`${name}: has no venv module`);
      continue;
    }
    const [major, minor, ...executable] = stdout.trim().split(" ");
    if (major === "3" && Number(minor) >= pythonMinors.min && Number(minor) <= pythonMinors.max)
      return executable.join(" ");
    seen.push(`${name}: Python ${major}.${minor}`);
  }
  const wanted = `Python 3.${pythonMinors.min} to 3.${pythonMinors.max} with venv`;
  fail(
    `no ${wanted} was found${seen.length > 0 ? ` (${seen.join("; ")})` : ""}`,
    "install one, or set AIRLOCK_PYTHON to its path",
  );
}
