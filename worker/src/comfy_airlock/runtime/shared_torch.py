"""The host's torch in a pack's environment: torch and what it needs are found in the host's packages, nothing else is.

The pack's own packages come first, because the finder is asked last.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, DistributionFinder, MetadataPathFinder
from types import ModuleType


class SharedTorchFinder(DistributionFinder):
    """Finds the named modules, and the metadata of the named distributions, in one folder."""

    def __init__(self, folder: str, modules: frozenset[str], distributions: frozenset[str]) -> None:
        self._folder = folder
        self._modules = modules
        self._distributions = distributions

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        # Submodules are found through their package's own path.
        if path is not None or fullname not in self._modules:
            return None
        return PathFinder.find_spec(fullname, [self._folder], target)

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> list[Distribution]:
        name = None if context is None else context.name
        wanted = self._distributions if name is None else {name} & self._distributions
        found: list[Distribution] = []
        for each in wanted:
            found += MetadataPathFinder.find_distributions(DistributionFinder.Context(name=each, path=[self._folder]))
        return found


def share_torch(said: str) -> None:
    """Makes the host's torch importable. ``said`` is the server's JSON of where it lies and what belongs to it."""
    torch = json.loads(said)
    sys.meta_path.append(
        SharedTorchFinder(torch["sitePackages"], frozenset(torch["modules"]), frozenset(torch["distributions"]))
    )
