"""Modules that are imported when first needed, by several threads at once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfy_airlock.wire.optional import installed, loaded, standard

SLOW = """
import threading
begun = threading.current_thread().begun
begun.set()
threading.current_thread().may_go_on.wait(20)
whole = True
"""


class _Importing(threading.Thread):
    """Imports a module that takes as long as it is told to."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        self._module = name

    def run(self) -> None:
        standard(self._module)


@pytest.mark.parametrize("load", [standard, installed])
def test_a_module_that_another_thread_is_importing_is_waited_for(
    load: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    name = f"slow_to_import_{load.__name__}"
    (tmp_path / f"{name}.py").write_text(SLOW)
    importing = _Importing(name)
    importing.start()
    assert importing.begun.wait(20)
    assert name in sys.modules
    assert loaded(name) is None
    threading.Timer(0.05, importing.may_go_on.set).start()
    assert load(name).whole
    assert loaded(name) is sys.modules[name]
    importing.join(20)
