"""What becomes of each key of an extension's config."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_airlock.compat.config import SandboxMode
from comfy_airlock.compat.manifest import check

BASE: dict[str, Any] = {"name": "pack", "module_path": "/packs/pack", "sandbox_mode": SandboxMode.DISABLED}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"sandbox_mode": SandboxMode.REQUIRED}, "sandbox_mode"),
        ({"sandbox_mode": "required"}, "sandbox_mode"),
        ({"package_manager": "conda", "conda_channels": ["conda-forge"]}, "package_manager"),
        ({"execution_model": "remote"}, "execution_model"),
        ({"execution_model": "sealed_worker", "share_torch": True}, "sealed_worker"),
        ({"share_cuda_ipc": True}, "share_cuda_ipc"),
        ({"sealed_host_ro_paths": ["/a"]}, "sealed_host_ro_paths"),
        ({"execution_model": "sealed_worker", "sealed_host_ro_paths": ["a"]}, "sealed_host_ro_paths"),
        ({"name": "  "}, "name"),
        ({"module_path": None}, "module_path"),
    ],
)
def test_what_there_is_not_is_refused_by_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        check({**BASE, **given})


@pytest.mark.parametrize(
    "given",
    [
        {"sandbox": {"network": False}},
        {"share_cuda_ipc": True, "share_torch": True},
        {"conda_channels": ["conda-forge"]},
        {"conda_dependencies": ["x"]},
        {"conda_platforms": ["linux-64"]},
        {"module": "a.b"},
        {"isolated": False},
        {"sandbox_mode": None},
        {"unheard_of": 1},
    ],
)
def test_what_has_no_effect_is_said(given: dict[str, Any]) -> None:
    notes = check({**BASE, **given}).notes
    assert len(notes) == 1 and next(iter(given)) in notes[0]


def test_what_is_the_default_is_not_said() -> None:
    assert (
        check({**BASE, "sandbox": {}, "share_cuda_ipc": False, "package_manager": "uv", "isolated": True}).notes == []
    )


def test_what_the_server_decides_is_passed_on() -> None:
    given = {"extra_index_urls": ["https://x"], "cuda_wheels": {"packages": ["a"]}, "dependencies": ["six"]}
    manifest = check({**BASE, **given, "share_torch": True, "env": {"A": "1"}}).manifest
    assert {name: manifest[name] for name in given} == given
    assert manifest["share_torch"] is True and manifest["env"]["A"] == "1"


def test_a_worker_has_its_host_s_variables_but_those_that_would_lead_it_astray(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOME_KEY", "PYTHONPATH", "VIRTUAL_ENV", "AIRLOCK_SOCKET", "PYISOLATE_CHILD"):
        monkeypatch.setenv(name, "the host's")
    env = check(BASE).manifest["env"]
    assert env["SOME_KEY"] == "the host's"
    assert not {"PYTHONPATH", "VIRTUAL_ENV", "AIRLOCK_SOCKET"} & set(env)
    said = {name: value for name, value in env.items() if name.startswith("PYISOLATE_")}
    assert said == {
        "PYISOLATE_CHILD": "1",
        "PYISOLATE_EXTENSION": "pack",
        "PYISOLATE_MODULE_PATH": "/packs/pack",
        "PYISOLATE_ENABLE_CUDA_IPC": "0",
        "PYISOLATE_IMPORT_TORCH": "0",
    }
