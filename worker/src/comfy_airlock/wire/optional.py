"""The loader of modules that may be missing or that cost too much to import before they are needed.

The one place that imports inside functions: torch takes over a second to import and numpy a tenth, a worker should be
ready in less, and neither is a dependency.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def loaded(name: str) -> Any | None:
    """The module, if this process has imported it. A value of its types can exist only then."""
    module = sys.modules.get(name)
    # Another thread may still be at it: ``import_module`` waits for that one.
    return None if module is None or getattr(module.__spec__, "_initializing", False) else module


def installed(name: str) -> Any | None:
    """The module, imported now if need be; None where it is not installed."""
    module = loaded(name)
    if module is not None:
        return module
    return import_module(name) if find_spec(name) is not None else None


def standard(name: str) -> Any:
    """A module that there is, imported when first needed."""
    return loaded(name) or import_module(name)
