"""``python -m comfy_airlock …`` is the ``airlock`` command, also where that is not on PATH but named by AIRLOCK_BIN."""

from __future__ import annotations

import os
import sys

from comfy_airlock.host.server_process import find_airlock
from comfy_airlock.wire.errors import Disconnected


def main() -> None:
    """Becomes the command, with the arguments that this was given."""
    try:
        command = find_airlock()
    except Disconnected as error:
        print(f"comfy_airlock: there is no `airlock` command\n→ {error.hint}", file=sys.stderr)
        sys.exit(1)
    os.execv(command, [command, *sys.argv[1:]])


if __name__ == "__main__":
    main()
