import { describe, expect, test } from "bun:test";
import { chmodSync, existsSync, lstatSync, mkdirSync, statSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import {
  claimSocketPath,
  clearSocketPath,
  ensureSocketFolder,
  removeSocketFile,
  removeSocketFolder,
} from "../../../src/server/socket-file.ts";
import { ManualClock } from "../../../src/transport/clock.ts";
import { AirlockError } from "../../../src/transport/errors.ts";
import { rejectionOf, thrownBy } from "../../support/errors.ts";
import { temporaryFolders } from "../../support/folders.ts";

const newFolder = temporaryFolders();
const uid = process.getuid?.() ?? 0;

async function listening(path: string): Promise<Server> {
  const server = createServer();
  await new Promise<void>((resolve) => void server.listen(path, resolve));
  return server;
}

const closed = (server: Server) => new Promise<void>((resolve) => void server.close(() => resolve()));

/** A socket file that nobody listens on: what a server that was killed leaves. */
async function staleSocket(path: string): Promise<void> {
  const killed = Bun.spawn(
    [
      process.execPath,
      "-e",
      `Bun.listen({ unix: process.argv[1], socket: { data() {} } }); process.kill(process.pid, 9)`,
      path,
    ],
    { stdio: ["ignore", "ignore", "ignore"] },
  );
  await killed.exited;
}

describe("the socket's folder", () => {
  test("is made for its user alone", () => {
    const folder = join(newFolder(), "a", "airlock");
    ensureSocketFolder(join(folder, "server.sock"), uid);
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    expect(() => ensureSocketFolder(join(folder, "server.sock"), uid)).not.toThrow();
  });

  test.each([
    [0o700, true],
    [0o755, true],
    [0o770, false],
    [0o702, false],
    [0o777, false],
    [0o1777, true],
  ])("of mode %o is accepted: %p", (mode, accepted) => {
    const folder = newFolder();
    chmodSync(folder, mode);
    const check = () => ensureSocketFolder(join(folder, "server.sock"), uid);
    if (accepted) expect(check).not.toThrow();
    else expect(thrownBy(check).code).toBe("unauthorized");
  });

  test("of another user is refused, but for root's", () => {
    const check = () => ensureSocketFolder(join(newFolder(), "server.sock"), uid + 1);
    if (uid === 0) expect(check).not.toThrow();
    else expect(thrownBy(check).code).toBe("unauthorized");
  });
});

describe("the socket's path", () => {
  test("is clear where there is nothing", async () => {
    await clearSocketPath(join(newFolder(), "server.sock"));
  });

  test("of a server that died is cleared", async () => {
    const path = join(newFolder(), "server.sock");
    await staleSocket(path);
    expect(lstatSync(path).isSocket()).toBe(true);
    await clearSocketPath(path);
    expect(existsSync(path)).toBe(false);
  });

  test("of a server that lives is left alone", async () => {
    const path = join(newFolder(), "server.sock");
    const server = await listening(path);
    const error = await rejectionOf(clearSocketPath(path));
    expect([error.code, error.message]).toEqual(["bad_request", `a server is running at ${path} already`]);
    expect(existsSync(path)).toBe(true);
    await closed(server);
  });

  test.each<[string, (path: string) => void]>([
    ["a file", (path) => writeFileSync(path, "mine")],
    ["a folder", (path) => mkdirSync(path)],
    ["a link that leads nowhere", (path) => symlinkSync("/nowhere", path)],
  ])("that is %s is left alone", async (_, make) => {
    const path = join(newFolder(), "server.sock");
    make(path);
    expect((await rejectionOf(clearSocketPath(path))).message).toContain("is not a socket");
    expect(lstatSync(path, { throwIfNoEntry: false })).toBeDefined();
  });

  test("is removed at the end, unless another server has taken it", () => {
    const path = join(newFolder(), "server.sock");
    writeFileSync(path, "ours");
    const { ino } = lstatSync(path);
    removeSocketFile(path, ino + 1);
    expect(existsSync(path)).toBe(true);
    removeSocketFile(path, ino);
    expect(existsSync(path)).toBe(false);
    expect(() => removeSocketFile(path, ino)).not.toThrow();
  });
});

describe("a claim to the socket's path", () => {
  test("is a lock beside it", async () => {
    const locked: string[] = [];
    const lockFile = async (path: string) => {
      locked.push(path);
      return { release: () => locked.pop() };
    };
    const claim = await claimSocketPath("/run/a.sock", lockFile, new ManualClock());
    expect(locked).toEqual(["/run/a.sock.lock"]);
    claim.release();
    expect(locked).toEqual([]);
  });

  test("that another server keeps is given up after a while", async () => {
    const clock = new ManualClock();
    const never = (_: string, signal: AbortSignal) =>
      new Promise<never>((_, reject) =>
        signal.addEventListener("abort", () => reject(new AirlockError("cancelled", "gave up"))),
      );
    const claiming = rejectionOf(claimSocketPath("/run/a.sock", never, clock));
    clock.advance(10_000);
    expect((await claiming).code).toBe("bad_request");
  });

  test("that fails for another reason says that one", async () => {
    const broken = () => Promise.reject(new AirlockError("internal_error", "no space"));
    expect((await rejectionOf(claimSocketPath("/a", broken, new ManualClock()))).message).toBe("no space");
  });
});

test("the socket's folder is removed only where nothing is left in it", () => {
  const folder = join(newFolder(), "airlock-1");
  mkdirSync(folder);
  writeFileSync(join(folder, "other"), "");
  removeSocketFolder(join(folder, "server.sock"));
  expect(existsSync(folder)).toBe(true);
  unlinkSync(join(folder, "other"));
  removeSocketFolder(join(folder, "server.sock"));
  expect(existsSync(folder)).toBe(false);
  expect(() => removeSocketFolder(join(folder, "server.sock"))).not.toThrow();
});
