"""The host's packages in a worker: found last, and never torch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from comfy_airlock.compat.host_packages import HostPackagesFinder, find_in_host
from comfy_airlock.compat.snapshot import split_path


def _install(folder: Path, name: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("")
    (folder / f"{name}-1.0.dist-info").mkdir()
    (folder / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


def test_packages_are_found_and_torch_is_not(tmp_path: Path) -> None:
    for name in ("useful", "torch", "torchvision"):
        _install(tmp_path, name)
    finder = HostPackagesFinder([str(tmp_path)])
    assert finder.find_spec("useful", None) is not None
    assert [each.metadata["Name"] for each in finder.find_distributions()] == ["useful"]
    for name in ("torch", "torchvision"):
        assert finder.find_spec(name, None) is None


def test_packages_of_another_python_are_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = len(sys.meta_path)
    find_in_host(["/packages"], (3, 99))
    assert len(sys.meta_path) == before
    find_in_host(["/packages"], sys.version_info[:2])
    assert isinstance(sys.meta_path[-1], HostPackagesFinder)


def test_folders_into_which_something_was_installed_are_told_from_those_with_the_host_s_modules(tmp_path: Path) -> None:
    packages, code = tmp_path / "packages", tmp_path / "code"
    _install(packages, "useful")
    code.mkdir()
    assert split_path([str(code), str(packages), str(code), "/usr/lib/python3.zip"]) == ([str(code)], [str(packages)])
