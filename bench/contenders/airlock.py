"""Airlock: a Python host, a server of its own, and a worker with the probe pack.

`python airlock.py calls COUNT [--relay]`.
"""

import sys
from pathlib import Path
from typing import Any

from measure import report_latency

from comfy_airlock import connect
from comfy_airlock.wire import connection

_PROBE = Path(__file__).parents[2] / "tests" / "packs" / "probe"


def main() -> None:
    """Echoes the payloads through a node."""
    if "--relay" in sys.argv:
        # A host that doesn't name the feature gets no line. Users have no reason to want that, so there is no option.
        connection._FEATURES = [feature for feature in connection._FEATURES if feature != "line"]
    with connect(name="bench") as host:
        pack = host.open(_PROBE)

        def call(value: Any) -> Any:
            return pack.call("Echo", value=value)[0]

        report_latency(call, int(sys.argv[2]))


if __name__ == "__main__":
    main()
