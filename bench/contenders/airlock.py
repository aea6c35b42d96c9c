"""Airlock: a Python host, a server of its own, and a worker with the probe pack.

`python airlock.py calls|inflight COUNT [--relay]`.
"""

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from latency import latency
from throughput import throughput_of_tasks, throughput_of_threads

from comfy_airlock import connect
from comfy_airlock.host.client import Airlock, Pack
from comfy_airlock.wire import connection

_PROBE = Path(__file__).parents[2] / "tests" / "packs" / "probe"


def main() -> None:
    """Echoes values through a node."""
    scenario, count, is_relayed = sys.argv[1], int(sys.argv[2]), "--relay" in sys.argv
    if is_relayed:
        # A host that doesn't name the feature gets no line. Users have no reason to want that, so there is no option.
        connection._FEATURES = [feature for feature in connection._FEATURES if feature != "line"]
    with connect(name="bench") as host:
        pack = host.open(_PROBE)

        def call(value: Any) -> Any:
            return pack.call("Echo", value=value)[0]

        async def acall(value: Any) -> Any:
            return (await pack.acall("Echo", value=value))[0]

        if scenario == "inflight":
            figures = asyncio.run(throughput_of_tasks(acall, count)) | throughput_of_threads(call, count)
        else:
            figures = latency(call, count)
        if _goes_over_relay(host, pack) != is_relayed:
            raise SystemExit(f"these calls went over the {'line' if is_relayed else 'relay'}")
    print(json.dumps(figures))


def _goes_over_relay(host: Airlock, pack: Pack) -> bool:
    """Whether the server knows of a call that is under way; of those over a line it doesn't."""
    with ThreadPoolExecutor(1) as thread:
        slow = thread.submit(pack.call, "Sleep", seconds=0.1)
        while not slow.done():
            if host.status()["packs"][0]["workers"][0]["relayed"] > 0:
                return True
    return False


if __name__ == "__main__":
    main()
