import { expect, test } from "bun:test";
import { type SharedTorch, withoutTorch } from "../../../src/server/environments/shared-torch.ts";

const host: SharedTorch = {
  executable: "/usr/bin/python3.12",
  state: "1",
  version: "2.8.0+cu128",
  python: "3.11",
  sitePackages: "/host/site-packages",
  locations: ["/host/site-packages"],
  modules: ["torch", "sympy"],
  distributions: ["sympy", "torch", "torchaudio"],
  requirements: [
    "sympy>=1.13.3",
    "torch==2.8.0",
    'setuptools; python_version >= "3.12"',
    "a @ https://example.invalid/a",
  ],
};

test("what the host provides is not installed, however it is spelt", () => {
  const { dependencies } = withoutTorch("p", ["six", "Torch>=2.4", "torchaudio", "torch-ema", "torchsde"], host);
  expect(dependencies).toEqual(["six", "torch-ema", "torchsde"]);
});

test("nobody who requires torch gets one, and the rest must suit the shared one", () => {
  const { overrides, constraints } = withoutTorch("p", [], host);
  expect(overrides.map((line) => line.split(" ")[0])).toEqual(["torch", "torchvision", "torchaudio"]);
  expect(constraints).toEqual(["sympy>=1.13.3", 'setuptools; python_version >= "3.12"']);
});

test.each([
  ["torch>=2.9", "2.8.0+cu128"],
  ["torchvision", "the host has no torchvision"],
])("%s is refused: the host does not have it", (line, reason) => {
  expect(() => withoutTorch("p", [line], host)).toThrow(reason);
});

test.each(["torch==2.8.0", "torch~=2.4", "torch>=9; sys_platform == 'win32'", "torch @ https://example.invalid/t.whl"])(
  "%s is not refused",
  (line) => {
    expect(withoutTorch("p", [line], host).dependencies).toEqual([]);
  },
);
