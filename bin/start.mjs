/** `npm start`: sets up what is missing, then isolates two packs that can't live together and runs a workflow over both. */
import { join } from "node:path";
import { becomeBun, packageFolder } from "./bun.mjs";
import { setUpPackages, setUpUv } from "./setup.mjs";

const bun = setUpPackages({ dev: false });
setUpUv();
const examples = join(packageFolder, "examples");
becomeBun(bun, [
  join(packageFolder, "src", "cli", "main.ts"),
  "run",
  join(examples, "workflows", "photo.json"),
  "--packs",
  join(examples, "packs"),
  "--output",
  join(packageFolder, "output"),
  ...process.argv.slice(2),
]);
