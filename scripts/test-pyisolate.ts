/**
 * `bun run test:pyisolate --checkout DIR`: those of pyisolate's own tests that touch only names which hosts rely on, run on
 * Airlock's module of that name. DIR is a clone of its repository, at v0.10.2.
 *
 * Fails where another test fails than those that are known to, or one of those passes: docs/compatibility.md tells why.
 */
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { parseArgs } from "node:util";
import { makeTorchEnvironment } from "./python.ts";
import { root } from "./steps.ts";

/** The other files test what lies beneath: transports, bootstrap, pip and conda, the sandbox. */
const files = [
  "path_unification/test_path_helpers.py",
  "test_adapter_contract.py",
  "test_config_validation.py",
  "test_event_channel.py",
  "test_extension_lifecycle.py",
  "test_host_public.py",
  "test_model_serialization.py",
  "test_path_helpers_contract.py",
  "test_remote_handle.py",
  "test_rpc_contract.py",
  "test_sealed_ndarray.py",
  "test_sealed_proxy_handle.py",
  "test_serialization_contract.py",
  "test_serialization_registry.py",
  "test_singleton_lifecycle.py",
  "test_singleton_shared.py",
  "test_torch_optional_contract.py",
];

const wording = "the error is of the same type, in other words";
const inside = "it looks into objects beneath the names that hosts use";
const arrays = "arrays cross as arrays, so there is no serializer of theirs to register";
const knownFailures: Readonly<Record<string, string>> = {
  test_emit_unregistered_event_raises: wording,
  test_use_remote_requires_proxied_singleton: wording,
  test_inject_before_instantiation: wording,
  test_stop_all_extensions_logs_error: wording,
  test_load_extension_returns_host_extension: inside,
  test_host_extension_getattr_delegates: inside,
  test_sealed_wraps_unregistered_object_as_handle: inside,
  test_sealed_resolves_handle_to_original_object: inside,
  test_sealed_stale_handle_raises_keyerror: inside,
  test_sealed_ndarray_roundtrip_via_handle: inside,
  test_ndarray_registered_as_data_type: arrays,
  test_ndarray_serializes_as_tensor_value: arrays,
  test_wrap_for_transport_passes_ndarray_inline: arrays,
  test_unsupported_ndarray_dtype_raises: arrays,
  test_torch_feature_raises_clear_error_when_torch_is_unavailable: inside,
  test_torch_feature_works_when_torch_is_available: inside,
  test_manifest_from_yaml: "it needs PyYAML, and nothing of pyisolate's",
  test_manifest_defaults_isolated_true: "it needs PyYAML, and nothing of pyisolate's",
};

const { values } = parseArgs({ options: { checkout: { type: "string" } } });
if (values.checkout === undefined) {
  console.error("test:pyisolate: --checkout names a clone of github.com/Comfy-Org/pyisolate, at v0.10.2");
  process.exit(2);
}
const { folder: environment, problem } = await makeTorchEnvironment();
if (problem !== undefined) throw new Error(problem);
// Away from its own modules, which pytest would find first.
const folder = mkdtempSync(join(tmpdir(), "pyisolate-tests-"));
try {
  cpSync(join(values.checkout, "tests"), join(folder, "tests"), { recursive: true });
  writeFileSync(join(folder, "pytest.ini"), "[pytest]\n");
  const failed = await failuresOf(folder);
  const unknown = failed.filter((name) => !Object.hasOwn(knownFailures, name));
  const passed = Object.keys(knownFailures).filter((name) => !failed.includes(name));
  for (const [name, reason] of Object.entries(knownFailures)) console.log(`known to fail: ${name}: ${reason}`);
  for (const name of unknown) console.log(`NOT KNOWN TO FAIL: ${name}`);
  for (const name of passed) console.log(`KNOWN TO FAIL, AND PASSES: ${name}`);
  process.exitCode = unknown.length + passed.length === 0 ? 0 : 1;
} finally {
  rmSync(folder, { recursive: true });
}

async function failuresOf(cwd: string): Promise<string[]> {
  const worker = join(root, "worker", "src");
  const path = [join(worker, "comfy_airlock", "compat", "shim"), worker, join(root, "tests", "compat")].join(delimiter);
  const options = ["-q", "-p", "coroutine_tests", "--tb=no", "--junitxml=report.xml"];
  const child = Bun.spawn(
    [join(environment, "bin", "python"), "-m", "pytest", ...options, ...files.map((file) => join("tests", file))],
    { cwd, env: { ...process.env, PYTHONPATH: path }, stdio: ["ignore", "inherit", "inherit"] },
  );
  await child.exited;
  const xml = await Bun.file(join(cwd, "report.xml")).text();
  const cases = [...xml.matchAll(/<testcase\b[^>]*\bname="([^"]*)"[^>]*?(\/>|>[\s\S]*?<\/testcase>)/g)];
  if (cases.length === 0) throw new Error("no test was run: is this a clone of pyisolate's repository?");
  return cases.filter(([, , rest]) => /<(?:failure|error)\b/.test(rest ?? "")).map(([, name]) => name ?? "");
}
