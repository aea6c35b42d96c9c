import { expect, test } from "bun:test";
import { torchVariables, workerVariables } from "../../../src/server/workers/variables.ts";

const base = { inherited: {}, added: {}, socketPath: "/s", token: "t", sharedTorch: undefined };

test("a worker inherits what does not lead its Python astray", () => {
  const inherited = {
    PATH: "/bin",
    PYTHONPATH: "/x",
    PYTHONHOME: "/x",
    PYTHONSTARTUP: "/x",
    PYTHONUSERBASE: "/x",
    VIRTUAL_ENV: "/x",
    CONDA_PREFIX: "/x",
    AIRLOCK_UV: "/x",
    AIRLOCK_TOKEN: "stolen",
    PYTHONHASHSEED: "0",
    MISSING: undefined,
  };
  expect(workerVariables({ ...base, inherited })).toEqual({
    OMP_WAIT_POLICY: "PASSIVE",
    PATH: "/bin",
    PYTHONHASHSEED: "0",
    PYTHONNOUSERSITE: "1",
    PYTHONUNBUFFERED: "1",
    PYTHONFAULTHANDLER: "1",
    AIRLOCK_SOCKET: "/s",
    AIRLOCK_TOKEN: "t",
  });
});

test("what a manifest sets wins over what is inherited, and never over the way back", () => {
  const added = { PATH: "/pack", PYTHONUNBUFFERED: "0", AIRLOCK_TOKEN: "forged", AIRLOCK_SOCKET: "/elsewhere" };
  expect(workerVariables({ ...base, inherited: { PATH: "/bin" }, added })).toMatchObject({
    PATH: "/pack",
    PYTHONUNBUFFERED: "0",
    AIRLOCK_TOKEN: "t",
    AIRLOCK_SOCKET: "/s",
  });
});

test("how OpenMP's threads wait is the user's to say", () => {
  const inherited = { OMP_WAIT_POLICY: "ACTIVE" };
  expect(workerVariables({ ...base, inherited })).toMatchObject(inherited);
});

test("torch is imported once for workers that differ in nothing that it looks at", () => {
  const variables = { AIRLOCK_SHARED_TORCH: "{}", PATH: "/bin", PYTHONUNBUFFERED: "1", OMP_NUM_THREADS: "2" };
  const looked = { AIRLOCK_SHARED_TORCH: "{}", OMP_NUM_THREADS: "2", PYTHONUNBUFFERED: "1" };
  expect(torchVariables(variables)).toEqual(looked);
  expect(JSON.stringify(torchVariables({ HOME: "/", ...variables }))).toBe(JSON.stringify(looked));
  expect(torchVariables({ LANG: "C", LANGCHAIN_API_KEY: "x", NVIDIA_API_KEY: "x", NVIDIA_TF32_OVERRIDE: "1" })).toEqual(
    {
      LANG: "C",
      NVIDIA_TF32_OVERRIDE: "1",
    },
  );
});
