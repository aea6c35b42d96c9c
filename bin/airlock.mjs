#!/usr/bin/env node
/** The `airlock` command: finds Bun and hands over to src/cli/main.ts. */
import { join } from "node:path";
import { becomeBun, findBun, packageFolder } from "./bun.mjs";

const bun = findBun();
if (bun === undefined) {
  console.error(
    "airlock: Bun is not installed here.\n→ install the package again; Bun comes with it, as the package `bun` or one of `@oven/bun-*`",
  );
  process.exit(1);
}
becomeBun(bun, [join(packageFolder, "src", "cli", "main.ts"), ...process.argv.slice(2)]);
