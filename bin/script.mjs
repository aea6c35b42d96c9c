/** `npm test`, `npm run check` and `npm run bench`: sets up what is missing, then runs the script that is named first. */
import { join } from "node:path";
import { becomeBun, packageFolder } from "./bun.mjs";
import { setUpPackages, setUpUv } from "./setup.mjs";

const [script, ...args] = process.argv.slice(2);
const bun = setUpPackages({ dev: true });
setUpUv();
becomeBun(bun, [join(packageFolder, script), ...args]);
