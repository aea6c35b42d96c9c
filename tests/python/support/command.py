"""The ``airlock`` command of this checkout, for hosts that look for it."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def own_command(folder: Path) -> Generator[Path]:
    """Makes the command in a folder, and has hosts of this process start it, with folders of its own."""
    command = folder / "airlock"
    command.write_text(f'#!/bin/sh\nexec "{shutil.which("node")}" "{ROOT}/bin/airlock.mjs" "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRLOCK_BIN", str(command))
        patch.delenv("AIRLOCK_SOCKET", raising=False)
        patch.setenv("XDG_CACHE_HOME", str(ROOT / ".airlock" / "test-cache"))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        yield command
