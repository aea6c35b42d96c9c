"""How a host describes its extensions: dictionaries, as their types have them."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypedDict


class SandboxMode(Enum):
    """Whether an extension has to be locked in."""

    REQUIRED = "required"
    DISABLED = "disabled"


class ExtensionManagerConfig(TypedDict):
    """What a manager is told."""

    venv_root_path: str
    """Not used: environments are the server's, shared by all extensions that ask for the same."""


class SandboxConfig(TypedDict, total=False):
    """What a sandbox shows."""

    writable_paths: list[str]
    readonly_paths: list[str] | dict[str, str]
    network: bool


class CUDAWheelConfig(TypedDict, total=False):
    """Where wheels for CUDA are found."""

    index_url: str
    index_urls: list[str]
    packages: list[str]
    package_map: dict[str, str]


class _Extension(TypedDict):
    name: str
    module_path: str


class ExtensionConfig(_Extension, total=False):
    """What a manager is told of an extension; docs/compatibility.md says what becomes of each key."""

    module: str
    isolated: bool
    dependencies: list[str]
    apis: list[Any]
    share_torch: bool
    share_cuda_ipc: bool
    sandbox: SandboxConfig
    sandbox_mode: SandboxMode | str
    env: dict[str, str]
    package_manager: str
    execution_model: str
    sealed_host_ro_paths: list[str]
    conda_channels: list[str]
    conda_dependencies: list[str]
    conda_platforms: list[str]
    cuda_wheels: CUDAWheelConfig
    extra_index_urls: list[str]
