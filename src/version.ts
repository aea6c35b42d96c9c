/** This build's version, as package.json has it. */
import { version } from "../package.json" with { type: "json" };

export { version };
