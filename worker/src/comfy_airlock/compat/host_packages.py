"""The host's packages in a worker: found where the pack has none of its own, by a finder that is asked last.

So what a pack pins comes before what its host has. Torch is never found in this way: either it is shared, which is seen
to elsewhere, or the pack has asked for one of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, DistributionFinder, MetadataPathFinder
from types import ModuleType
from typing import Final

_TORCH: Final = frozenset({"torch", "torchvision", "torchaudio", "torchgen", "functorch", "triton", "nvidia"})
_NEVER: Final = _TORCH | {"pyisolate", "comfy_airlock"}


class HostPackagesFinder(DistributionFinder):
    """Finds modules, and the metadata of distributions, in folders of the host's."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = list(folders)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        # Submodules are found through their package's own path.
        if path is not None or fullname in _NEVER:
            return None
        return PathFinder.find_spec(fullname, self._folders, target)

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> list[Distribution]:
        name = None if context is None else context.name
        if name in _NEVER:
            return []
        found = MetadataPathFinder.find_distributions(DistributionFinder.Context(name=name, path=self._folders))
        return [each for each in found if each.metadata["Name"] not in _NEVER]


def find_in_host(folders: Sequence[str], python: Sequence[int]) -> None:
    """Makes the host's packages importable, if they were made for this version of Python."""
    if folders and tuple(python) == sys.version_info[:2]:
        sys.meta_path.append(HostPackagesFinder(folders))
