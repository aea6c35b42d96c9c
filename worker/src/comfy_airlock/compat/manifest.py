"""An extension's config as the manifest of a pack: what is carried out, what is refused, and what has no effect and is
said.

Invariant: a key that is there is one of these three. What a manifest of Airlock's has a key for is the server's to
check.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from comfy_airlock.compat.config import SandboxMode
from comfy_airlock.wire.errors import BadRequest

_OWN: Final = frozenset(
    "name module_path dependencies share_torch env apis execution_model sealed_host_ro_paths isolated".split()
)
"""Carried out here, or on the way."""

_TO_THE_SERVER: Final = frozenset(
    "extra_index_urls cuda_wheels limits idle_timeout private_memory requires_python python".split()
)
"""Told the server as they are, which carries them out or refuses them by name."""

_WITHOUT_EFFECT: Final = {
    "sandbox": "there is no sandbox yet, the extension can do what its host can",
    "share_cuda_ipc": "tensors of a GPU are sent by way of the CPU's memory",
    "module": "the extension is the folder that module_path names",
    "conda_channels": "package_manager is not conda",
    "conda_dependencies": "package_manager is not conda",
    "conda_platforms": "package_manager is not conda",
    "conda_python": "package_manager is not conda",
}

_WITHHELD: Final = ("PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX", "AIRLOCK_", "PYISOLATE_", "__PYVENV_LAUNCHER__", "UV_")
"""Beginnings of variables of the host's that would lead a worker astray, or that it gets in its own way."""


class Checked(NamedTuple):
    """What a config came to."""

    name: str
    folder: str
    share_torch: bool
    is_sealed: bool
    sealed_paths: list[str]
    manifest: dict[str, Any]
    notes: list[str]
    """What has no effect, a sentence each."""


def check(config: Mapping[str, Any]) -> Checked:
    """
    Raises:
        BadRequest: a key asks for what there is not, and the extension would not work or not be safe without it; or has
        a
            value that is none of its.
    """
    name, folder = config.get("name"), config.get("module_path")
    if not isinstance(name, str) or not name.strip(" ./\\"):
        raise BadRequest(f"an extension's name is {name!r}: it has to be a text with a letter in it")
    if not isinstance(folder, str) or not folder:
        raise BadRequest(f"extension {name}: module_path is {folder!r}: it has to name the pack's folder")
    is_sealed = _is_sealed(name, config)
    share_torch = bool(config.get("share_torch", False))
    _refuse_what_is_not_there(name, config, is_sealed, share_torch)
    manifest = {
        "isolated": True,
        "name": name,
        "dependencies": [*(config.get("dependencies") or ())],
        "share_torch": share_torch,
        "env": _variables(config, name, folder, share_torch),
        # It imports the host's modules, and those are compiled for the host's Python.
        "requires_python": "=={}.{}.*".format(*sys.version_info),
        **{key: config[key] for key in _TO_THE_SERVER if key in config},
    }
    return Checked(
        name,
        folder,
        share_torch,
        is_sealed,
        [*(config.get("sealed_host_ro_paths") or ())],
        manifest,
        _notes(name, config),
    )


def _is_sealed(name: str, config: Mapping[str, Any]) -> bool:
    model = config.get("execution_model") or "host-coupled"
    if model not in ("host-coupled", "sealed_worker"):
        raise BadRequest(
            f"extension {name}: execution_model is {model!r}, which is neither host-coupled nor sealed_worker"
        )
    return bool(model == "sealed_worker")


def _refuse_what_is_not_there(name: str, config: Mapping[str, Any], is_sealed: bool, share_torch: bool) -> None:
    manager = config.get("package_manager") or "uv"
    if manager != "uv":
        raise BadRequest(
            f"extension {name}: package_manager is {manager!r}, and environments are made by uv alone",
            hint='list what the extension needs in dependencies, and leave package_manager out or set it to "uv"',
        )
    mode = config.get("sandbox_mode")
    if mode is not None and _value(mode) != SandboxMode.DISABLED.value:
        raise BadRequest(
            f"extension {name}: sandbox_mode is {_value(mode)!r}, and there is no sandbox yet",
            hint='where you trust the extension, say so: sandbox_mode = "disabled"',
        )
    if is_sealed and share_torch:
        raise BadRequest(f"extension {name}: a sealed_worker can't share_torch: it has nothing of its host's")
    if config.get("share_cuda_ipc") and not share_torch:
        raise BadRequest(f"extension {name}: share_cuda_ipc needs share_torch")
    paths = config.get("sealed_host_ro_paths") or ()
    if paths and not is_sealed:
        raise BadRequest(f"extension {name}: sealed_host_ro_paths are for the execution_model sealed_worker")
    if not all(isinstance(each, str) and os.path.isabs(each) for each in paths):
        raise BadRequest(f"extension {name}: sealed_host_ro_paths are absolute paths, not {paths!r}")


def _value(mode: Any) -> Any:
    return mode.value if isinstance(mode, SandboxMode) else mode


def _notes(name: str, config: Mapping[str, Any]) -> list[str]:
    said = {key: why for key, why in _WITHOUT_EFFECT.items() if config.get(key)}
    if config.get("isolated") is False:
        said["isolated"] = "what a manager loads always has a process of its own"
    if config.get("sandbox_mode") is None:
        said["sandbox_mode"] = "it is not set, and there is no sandbox yet: the extension can do what its host can"
    known = _OWN | _TO_THE_SERVER | set(_WITHOUT_EFFECT) | {"package_manager", "sandbox_mode"}
    said.update({key: "it is no key that is known" for key in config if key not in known})
    return [f"extension {name}: {key} has no effect: {why}" for key, why in said.items()]


def _variables(config: Mapping[str, Any], name: str, folder: str, share_torch: bool) -> dict[str, str]:
    """The worker's environment: its host's, as if the host had started it, and its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_WITHHELD) and _is_text(key + value)}
    return {
        **kept,
        # Of those that only say how much is told.
        **{key: os.environ[key] for key in ("PYISOLATE_DEBUG_RPC", "PYISOLATE_PATH_DEBUG") if key in os.environ},
        **(config.get("env") or {}),
        "PYISOLATE_CHILD": "1",
        "PYISOLATE_EXTENSION": name,
        "PYISOLATE_MODULE_PATH": folder,
        "PYISOLATE_ENABLE_CUDA_IPC": "0",
        **({} if share_torch else {"PYISOLATE_IMPORT_TORCH": "0"}),
    }


def _is_text(value: str) -> bool:
    """Whether it is the same in a message: a variable may hold bytes that are no text."""
    return value.isascii() or value.encode(errors="replace").decode() == value
