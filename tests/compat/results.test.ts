/** One host, with no line changed, on pyisolate 0.10.2 and on Airlock: equal results; and where Airlock is meant to differ. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { useWorld } from "../integration/support.ts";
import { type On, runHost } from "./hosts.ts";

const world = useWorld();
const packs = join(import.meta.dir, "packs");
const timeout = 300_000;

test(
  "a host in ComfyUI's shape has the same results on pyisolate and on Airlock",
  async () => {
    const onAirlock = await runHost("Airlock", "main.py", world, [packs]);
    const onPyisolate = await runHost("pyisolate", "main.py", world, [packs]);
    expect(onAirlock).toEqual(onPyisolate);
    // That they are equal would show little if they were empty.
    expect(onAirlock).toMatchObject({
      counts: [1, 2, 3],
      events: [{ count: 3 }],
      images: [["Tensor", [1, 2, 2, 3], expect.anything()], expect.anything()],
      models: [["Tensor", [2], [6, 6]], true, "a model", expect.anything()],
      progress: [
        [1, 3],
        [2, 3],
        [3, 3],
      ],
      respawned: [true, 4, 1],
      left: [false, 0],
    });
  },
  timeout,
);

/** What docs/compatibility.md says that is better, with what the original does. */
const differences: Record<string, Record<On, unknown>> = {
  // The pack pins 1.16.0; its host has 1.17.0.
  "a pack's own pin": { Airlock: "1.16.0", pyisolate: "1.17.0" },
  "a tuple": { Airlock: "tuple", pyisolate: "list" },
  "a set": { Airlock: "set", pyisolate: "RuntimeError" },
  "keys that are numbers": { Airlock: "int", pyisolate: "str" },
  "the type of an exception": { Airlock: "KeyError", pyisolate: "Exception" },
  "the remote traceback": { Airlock: true, pyisolate: false },
  "CUDA IPC without CUDA": { Airlock: "ok", pyisolate: "RuntimeError" },
  "an early call": { Airlock: ["Early"], pyisolate: [] },
  "a pack that fails to import": { Airlock: "ZeroDivisionError", pyisolate: "dict" },
};

test(
  "where Airlock differs from pyisolate, it is as docs/compatibility.md says",
  async () => {
    const expected = (on: On) => Object.fromEntries(Object.entries(differences).map(([what, of]) => [what, of[on]]));
    expect(await runHost("Airlock", "differences.py", world, [packs])).toEqual(expected("Airlock"));
    expect(await runHost("pyisolate", "differences.py", world, [packs])).toEqual(expected("pyisolate"));
  },
  timeout,
);
