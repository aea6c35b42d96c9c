/** The same cases over every transport. */
import { describe } from "bun:test";
import { conformanceCases } from "./cases.ts";
import { overMemory, overRelay } from "./worlds.ts";

describe("over memory", () => conformanceCases(overMemory));
describe("over the relay", () => conformanceCases(overRelay({ line: false })));
describe("over the relay with credit", () => conformanceCases(overRelay({ line: false, window: 64 * 1024 })));
describe("over a line", () => conformanceCases(overRelay({ line: true })));
describe("over the relay with shared memory", () => conformanceCases(overRelay({ line: false, segments: true })));
describe("over a line with shared memory", () => conformanceCases(overRelay({ line: true, segments: true })));
