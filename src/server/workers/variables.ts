/**
 * The environment variables of a worker: the server's own, less what would lead its Python astray, plus what it needs to
 * find its way back. Pure.
 */
import type { Variables } from "../../transport/address.ts";
import type { SharedTorch } from "../environments/shared-torch.ts";

/** Variables that point a Python at somebody else's packages, and those that are the server's own business. */
const withheld =
  /^(?:PYTHON(?:PATH|HOME|STARTUP|USERBASE|EXECUTABLE|SAFEPATH)|VIRTUAL_ENV|CONDA_PREFIX|AIRLOCK_.*|__PYVENV_LAUNCHER__)$/;

export interface WorkerVariables {
  readonly inherited: Variables;
  /** What the embedder and the manifest set; wins over what is inherited. */
  readonly added: Readonly<Record<string, string>>;
  readonly socketPath: string;
  readonly token: string;
  readonly sharedTorch: SharedTorch | undefined;
}

/** What every worker has, whichever pack's it is. */
export function commonVariables(inherited: Variables): Record<string, string> {
  const kept = Object.entries(inherited).filter(
    (entry): entry is [string, string] => entry[1] !== undefined && !withheld.test(entry[0]),
  );
  return {
    // OpenMP's threads (torch's, numpy's) spin for some milliseconds when they have nothing to do, on cores that the host
    // and other workers need by then.
    OMP_WAIT_POLICY: "PASSIVE",
    ...Object.fromEntries(kept),
    // Packages of the user's own Python would come before nothing and after everything else: never what a pack pinned.
    PYTHONNOUSERSITE: "1",
    // What a pack prints should be in its log when it dies.
    PYTHONUNBUFFERED: "1",
    // A crash before the worker has its own pipe for stacks, and one of a Python that it starts, is in the log.
    PYTHONFAULTHANDLER: "1",
  };
}

export function workerVariables(options: WorkerVariables): Record<string, string> {
  return {
    ...commonVariables(options.inherited),
    ...options.added,
    AIRLOCK_SOCKET: options.socketPath,
    AIRLOCK_TOKEN: options.token,
    ...sharedTorchVariable(options.sharedTorch),
  };
}

/** How a worker is told which torch it shares, if it does. */
export function sharedTorchVariable(torch: SharedTorch | undefined): Record<string, string> {
  return torch === undefined ? {} : { AIRLOCK_SHARED_TORCH: JSON.stringify(torch) };
}

/** Variables that an interpreter, a linker or a library looks at as it starts or is loaded, before a child could set them. */
const lookedAtOnLoad =
  /^(?:AIRLOCK_SHARED_TORCH$|PYTHON|LD_|LC_|LANG$|LANGUAGE$|MALLOC_|GLIBC_|OMP_|GOMP_|KMP_|MKL_|OPENBLAS_|BLIS_|NUMEXPR_|NUMPY_|NPY_|ATEN_|KINETO_|TORCH|PYTORCH|CUDA|CUBLAS|CUDNN|NCCL_|NVIDIA_(?!API)|HIP_|HSA_|ROC|MIOPEN_|ZE_|SYCL_|ONEAPI_|TRITON_)/;

/** Those of a worker's variables that the import of torch may depend on, in order. */
export function torchVariables(variables: Readonly<Record<string, string>>): Record<string, string> {
  const entries = Object.entries(variables).filter(([name]) => lookedAtOnLoad.test(name));
  return Object.fromEntries(entries.sort(([one], [other]) => (one < other ? -1 : 1)));
}
