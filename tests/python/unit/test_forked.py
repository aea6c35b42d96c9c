"""Which modules a forked child keeps of those that were imported before its environment was looked at."""

from __future__ import annotations

import sys

import pytest

from comfy_airlock.runtime.forked import Loaded, loaded_modules, modules_to_unload, site_packages

TORCH = Loaded("torch", is_compiled=True, version="2.13.0")
NUMPY = Loaded("numpy", is_compiled=True, version="2.2.6")
TYPING = Loaded("typing_extensions", is_compiled=False, version=None)


@pytest.mark.parametrize(
    ("entries", "unloaded"),
    [
        (["six.py", "msgpack"], []),
        (["typing_extensions.py"], ["typing_extensions"]),
        (["typing_extensions"], ["typing_extensions"]),
        (["numpy", "numpy-2.2.6.dist-info", "numpy.libs"], []),
    ],
)
def test_an_environments_own_python_is_found_in_place_of_what_was_imported(
    entries: list[str], unloaded: list[str]
) -> None:
    assert modules_to_unload(entries, [TORCH, NUMPY, TYPING]) == unloaded


def test_compiled_modules_of_another_version_can_not_be_replaced() -> None:
    with pytest.raises(ImportError, match=r"a numpy of its own, and torch was imported with 2\.2\.6"):
        modules_to_unload(["numpy", "numpy-1.26.4.dist-info"], [TORCH, NUMPY])


def test_torch_finds_a_numpy_as_it_is_imported_or_never() -> None:
    with pytest.raises(ImportError, match="imported without one"):
        modules_to_unload(["numpy", "numpy-2.2.6.dist-info"], [TORCH])


def test_what_is_loaded_is_told_by_top_level_names() -> None:
    loaded = {each.name: each for each in loaded_modules()}
    assert {"msgpack", "pytest"} <= set(loaded)
    assert not {"os", "sys", "comfy_airlock", "__main__"} & set(loaded)
    assert loaded["msgpack"].is_compiled
    assert (loaded["pytest"].is_compiled, loaded["pytest"].version) == (False, pytest.__version__)


def test_packages_lie_beside_the_interpreter() -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    assert site_packages("/env/bin/python") == f"/env/lib/{version}/site-packages"
