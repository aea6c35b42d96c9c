"""Which modules a forked child keeps of those that were imported before its environment was looked at."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from comfy_airlock.runtime.forked import (
    Loaded,
    environment_entries,
    loaded_modules,
    modules_to_unload,
    site_packages,
)

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


@pytest.mark.parametrize("name", ["numpy", "opt_einsum"])
def test_what_torch_looks_for_it_finds_as_it_is_imported_or_never(name: str) -> None:
    with pytest.raises(ImportError, match=f"has a {name}, and torch was imported without one"):
        modules_to_unload([name, f"{name}-2.2.6.dist-info"], [TORCH])


def test_what_torch_loads_as_it_is_imported_can_not_be_added(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    info = Path(site_packages(str(python))) / "torch_npu-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").touch()
    assert environment_entries(str(python)) == ["torch_npu-2.0.dist-info"]
    (info / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
    with pytest.raises(ImportError, match="torch_npu-2.0.dist-info, which torch loads"):
        environment_entries(str(python))


def test_what_is_loaded_is_told_by_top_level_names() -> None:
    loaded = {each.name: each for each in loaded_modules()}
    assert {"msgpack", "pytest"} <= set(loaded)
    assert not {"os", "sys", "comfy_airlock", "__main__"} & set(loaded)
    assert loaded["msgpack"].is_compiled
    assert (loaded["pytest"].is_compiled, loaded["pytest"].version) == (False, pytest.__version__)


def test_packages_lie_beside_the_interpreter() -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    assert site_packages("/env/bin/python") == f"/env/lib/{version}/site-packages"
