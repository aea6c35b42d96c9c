"""What a worker is told of its host when it starts: where modules are found, and what is to be imported, by name."""

from __future__ import annotations

import json
import logging
import os
import site
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import comfy_airlock
from comfy_airlock.compat.adapters import AdapterRegistry
from comfy_airlock.compat.host_paths import norm, serialize_host_snapshot, unique
from comfy_airlock.compat.manifest import Checked

SHIM: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim")
"""The folder with the package that is found as ``pyisolate``."""

_OWN: Final = {norm(SHIM), norm(os.path.dirname(os.path.dirname(os.path.abspath(comfy_airlock.__file__ or ""))))}


def settings_for(checked: Checked, extension_type: type[Any], apis: Iterable[type[Any]]) -> str:
    """The settings of :mod:`comfy_airlock.compat.child`, as it reads them."""
    adapter = AdapterRegistry.get()
    paths: dict[str, Any] = {}
    if adapter is not None and not checked.is_sealed:
        paths = adapter.get_path_config(checked.folder) or {}
    code, packages = split_path(sys.path)
    if checked.is_sealed and not checked.sealed_paths:
        # It could not import what the adapter imports.
        adapter = None
    snapshot = {
        **serialize_host_snapshot(),
        "adapter_ref": None if adapter is None else _adapter_reference(adapter),
        "adapter_name": None if adapter is None else adapter.identifier,
        "preferred_root": paths.get("preferred_root"),
        "additional_paths": list(paths.get("additional_paths") or ()),
        "filtered_subdirs": paths.get("filtered_subdirs"),
        "context_data": {"module_path": checked.folder},
    }
    if checked.is_sealed:
        code = packages = []
        snapshot.update(apply_host_sys_path=False, sealed_host_ro_paths=checked.sealed_paths)
    return json.dumps(
        {
            "name": checked.name,
            "module_path": checked.folder,
            "extension_type": reference_to(extension_type),
            "apis": [] if checked.is_sealed else [reference_to(each) for each in apis],
            "share_torch": checked.share_torch,
            "is_sealed": checked.is_sealed,
            "cwd": checked.folder if checked.is_sealed else os.getcwd(),
            "code_paths": code,
            "package_paths": packages,
            "python": list(sys.version_info[:2]),
            "snapshot": snapshot,
        },
        # An adapter may tell paths as such.
        default=str,
    )


def split_path(paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """Folders with the host's own modules, and those into which packages are installed. Python's own are in neither."""
    python = {norm(path) for name, path in sysconfig.get_paths().items() if name in ("stdlib", "platstdlib")}
    python |= {os.path.join(path, "lib-dynload") for path in python}
    installed = {norm(path) for path in [*site.getsitepackages(), sysconfig.get_paths()["purelib"]]}
    code: list[str] = []
    packages: list[str] = []
    for path in unique(each or os.getcwd() for each in paths):
        place = norm(path)
        if place in python or place in _OWN or path.endswith(".zip"):
            continue
        (packages if place in installed or _holds_packages(path) else code).append(os.path.abspath(path))
    return code, packages


def _holds_packages(path: str) -> bool:
    """Whether something was installed into the folder: what a pack pins comes before that."""
    return next(Path(path).glob("*.dist-info"), None) is not None


def reference_to(cls: type[Any]) -> str:
    """A class by its module and name."""
    return f"{cls.__module__}:{cls.__qualname__}"


def _adapter_reference(adapter: Any) -> str | None:
    cls: type[Any] = type(adapter)
    if cls.__module__ != "__main__":
        return reference_to(cls)
    said = "the adapter %s is defined in the program itself, which workers can't import: they go without it"
    logging.getLogger(__name__).warning(said, cls.__qualname__)
    return None
