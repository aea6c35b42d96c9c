"""The wheel: what is in it, what it asks for, and that a host needs no more than that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from .conftest import ROOT

SECONDS_MAX = 300


def run_uv(*args: str | Path) -> None:
    """Runs uv as the server does: the project's own, which finds wheels where pip is told that they lie."""
    own = ROOT / ".venv" / "bin" / "uv"
    uv = os.environ.get("AIRLOCK_UV") or (str(own) if own.exists() else shutil.which("uv"))
    assert uv is not None, "the project's environment has uv: run `npm test`"
    places = os.environ.get("UV_FIND_LINKS") or ",".join(os.environ.get("PIP_FIND_LINKS", "").split())
    ours = {"VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "UV_FIND_LINKS"}
    variables = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [uv, *map(str, args)], env={**variables, **({"UV_FIND_LINKS": places} if places else {})},
        cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS_MAX,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run_uv("build", "--quiet", "--wheel", ROOT / "worker", "--out-dir", folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter for which the wheel and what it requires are installed, and nothing else."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    run_uv("venv", "--quiet", "--python", sys.executable, folder)
    run_uv("pip", "install", "--quiet", "--python", folder / "bin" / "python", wheel)
    return folder / "bin" / "python"


def said_by(python: Path, code: str) -> str:
    return subprocess.run(
        [python, "-I", "-c", code], stdout=subprocess.PIPE, text=True, timeout=SECONDS_MAX, check=True
    ).stdout.strip()


def test_the_wheel_requires_msgpack_alone(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        (path,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(path).decode())
    required = metadata.get_all("Requires-Dist", [])
    assert [each for each in required if "extra ==" not in each] == ["msgpack>=1.1"]
    assert metadata["Requires-Python"] == "<3.14,>=3.10"


def test_the_wheel_holds_every_module_and_the_marker_of_types(wheel: Path) -> None:
    source = ROOT / "worker" / "src"
    modules = {str(each.relative_to(source)) for each in source.rglob("*.py")}
    with ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == modules | {"comfy_airlock/py.typed"}


def test_the_installed_package_connects_without_numpy_or_torch(python: Path) -> None:
    code = (
        "import comfy_airlock, importlib.metadata, importlib.util;"
        "assert all(importlib.util.find_spec(name) is None for name in ('numpy', 'torch', 'ml_dtypes'));"
        "assert all(getattr(comfy_airlock, name) is not None for name in comfy_airlock.__all__);"
        "print(callable(comfy_airlock.connect), *sorted(each.name for each in importlib.metadata.distributions()))"
    )
    assert said_by(python, code) == "True comfy-airlock msgpack"


def test_the_installed_package_calls_a_node(python: Path) -> None:
    pack = ROOT / "tests" / "packs" / "probe"
    code = (
        "import comfy_airlock\n"
        "with comfy_airlock.connect() as airlock:\n"
        f"    print(airlock.open({str(pack)!r}).call('Echo', value=(1, 'two')))"
    )
    assert said_by(python, code) == "((1, 'two'),)"
