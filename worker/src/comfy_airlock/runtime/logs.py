"""Has the pack's log records sent to the host, from the moment that anything imports ``logging``.

Importing it takes a twentieth of a worker's start, and a pack may do without: so it is waited for, by a finder that
steps aside once it has come.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

from comfy_airlock.wire.optional import standard

if TYPE_CHECKING:
    # At run time it brings half of importlib.resources along, and a worker has no use for that.
    from importlib.abc import Loader

_LOGGING: Final = "logging"


class LogForwarding:
    """The way of a pack's log records to its host. One per process, as ``logging`` is."""

    def __init__(self, emit: Callable[[str, Any], None]) -> None:
        """
        Args:
            emit: sends an event to the host, and may block.
        """
        self._emit = emit
        self._records: Any = None

    def begin(self) -> None:
        """To be called before the pack is imported."""
        if _LOGGING in sys.modules:
            self._capture()
        else:
            sys.meta_path.insert(0, cast("Any", _WhenImported(self._capture)))

    def _capture(self) -> None:
        self._records = standard("comfy_airlock.runtime.log_records").LogRecords(self._emit)
        self._records.capture()

    def end(self) -> None:
        """Gives what waits to be sent a moment."""
        if self._records is not None:
            self._records.flush()


class _WhenImported:
    """A finder that finds ``logging`` as all others do, and does something more when it has been loaded."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if name != _LOGGING or self not in cast("list[Any]", sys.meta_path):
            return None
        sys.meta_path.remove(cast("Any", self))
        spec = find_spec(_LOGGING)
        if spec is not None and spec.loader is not None:
            spec.loader = cast("Any", _Loading(spec, spec.loader, self._action))
        return spec


class _Loading:
    """The module's own loader, and what comes after it."""

    def __init__(self, spec: ModuleSpec, loader: Loader, action: Callable[[], None]) -> None:
        self._spec = spec
        self._loader = loader
        self._action = action

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # What looks at the module finds nothing of this.
        self._spec.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._action()
