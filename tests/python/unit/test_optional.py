"""Modules that are imported late, by several threads at once."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from comfy_airlock.wire.optional import installed, loaded, standard

_SLOW = """
import time
time.sleep(0.3)
answer = 42
"""


@pytest.mark.parametrize("load", [installed, standard])
def test_nobody_gets_half_a_module_that_another_thread_imports(
    load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "airlock_slow_module.py").write_text(_SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    assert callable(load)
    importing = threading.Thread(target=load, args=["airlock_slow_module"])
    importing.start()
    try:
        while "airlock_slow_module" not in sys.modules:
            pass
        assert loaded("airlock_slow_module") is None
        assert load("airlock_slow_module").answer == 42
        assert loaded("airlock_slow_module") is sys.modules["airlock_slow_module"]
    finally:
        importing.join()
        sys.modules.pop("airlock_slow_module", None)
