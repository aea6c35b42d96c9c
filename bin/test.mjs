/** `npm test`: sets up what is missing, then runs all checks and tests; see scripts/test.ts. */
import { join } from "node:path";
import { becomeBun, packageFolder } from "./bun.mjs";
import { setUpPackages, setUpUv } from "./setup.mjs";

const bun = setUpPackages({ dev: true });
setUpUv();
becomeBun(bun, [join(packageFolder, "scripts", "test.ts"), ...process.argv.slice(2)]);
