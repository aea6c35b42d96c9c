"""Where modules are found: what a host tells of its own path, and in which order a worker looks."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

_VARIABLES: Final = ("VIRTUAL_ENV", "PYTHONPATH", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
"""Variables that a snapshot has."""


def serialize_host_snapshot(
    output_path: str | os.PathLike[str] | None = None, extra_env_keys: Iterable[str] | None = None
) -> dict[str, Any]:
    """This interpreter's path, program and prefix, and some of its variables.

    Args:
        output_path: a file to write it to as JSON; its folder is made. The snapshot says so as ``snapshot_path``.
        extra_env_keys: further variables.
    """
    names = [*_VARIABLES, *(extra_env_keys or ())]
    environment = {name: os.environ[name] for name in names if name in os.environ}
    told: dict[str, Any] = {f"sys_{name}": getattr(sys, name) for name in ("executable", "prefix")}
    told.update(sys_path=[*sys.path], environment=environment)
    if output_path is None:
        return told
    file = Path(output_path)
    os.makedirs(file.parent, exist_ok=True)
    file.write_bytes(json.dumps(told).encode())
    return {**told, "snapshot_path": str(file)}


def build_child_sys_path(
    host_paths: Sequence[str],
    extra_paths: Sequence[str],
    preferred_root: str | None = None,
    filtered_subdirs: Sequence[str] | None = None,
) -> list[str]:
    """A path of the preferred root, the host's entries and the extra ones, each once.

    Args:
        filtered_subdirs: folders in the preferred root that are left out of the host's entries.
    """
    first = [] if not preferred_root else [preferred_root]
    left_out = (
        {norm(os.path.join(preferred_root, name)) for name in filtered_subdirs or ()} if preferred_root else set()
    )
    return unique([*first, *(path for path in host_paths if path and norm(path) not in left_out), *extra_paths])


def unique(paths: Iterable[str]) -> list[str]:
    """The paths, each at its first place; empty ones are left out."""
    found: dict[str, str] = {}
    for path in paths:
        if path:
            found.setdefault(norm(path), path)
    return list(found.values())


def norm(path: str) -> str:
    """The path in the spelling in which equal ones are equal."""
    return os.path.normcase(os.path.abspath(path))
