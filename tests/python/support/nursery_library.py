"""The library of worker/native, compiled for tests."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

_SOURCES = sorted((Path(__file__).parents[3] / "worker" / "native").glob("*.c"))
_NAME = "nursery.so"
_OPTIONS = [
    "-std=c11",
    "-O1",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-pthread",
]


def nursery_library() -> str:
    """Its path; skips the test where there is no C compiler."""
    folder = _compiled()
    if folder is None:
        pytest.skip("there is no C compiler")
    return str(Path(folder.name) / _NAME)


@functools.cache
def _compiled() -> tempfile.TemporaryDirectory[str] | None:
    """The folder that it is in, for as long as this process lives."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    folder = tempfile.TemporaryDirectory(prefix="airlock-nursery-")
    subprocess.run([compiler, *_OPTIONS, "-o", str(Path(folder.name) / _NAME), *map(str, _SOURCES)], check=True)
    return folder
