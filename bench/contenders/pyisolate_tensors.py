# /// script
# requires-python = ">=3.10"
# # msgpack for Airlock, which the same host runs on in drop-in.
# dependencies = ["pyisolate==0.10.2", "numpy", "msgpack==1.2.4"]
#
# [tool.airlock-bench]
# name = "pyisolate 0.10.2 with torch"
# scenarios = ["callback", "sizes", "chain", "shapes", "images", "footprint", "spawn-torch", "idle", "drop-in"]
# torch = true
#
# [tool.airlock-bench.contenders]
# "pyisolate" = []
# ///
"""pyisolate with tensors, by its API: an extension whose worker shares the host's torch, and tensors in shared memory.

Only such a worker can call back: by a singleton, whose one instance is the host's. A worker has torch imported from its
start; whoever sent a tensor keeps it for five seconds at least. The rest is as in pyisolate_calls.py.
`python pyisolate_tensors.py SCENARIO PARAMETERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness import run
from pyisolate import ProxiedSingleton
from pyisolate_calls import Pyisolate
from workload_extension import HostFunction


class PyisolateTensors(Pyisolate):
    """Methods of an extension, coupled to the host."""

    share_torch = True

    def _apis(self) -> list[type[ProxiedSingleton]]:
        return [HostFunction]

    async def acall(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        if function == "call_back":
            return await self._extensions[worker].call_back(values["value"])
        return await super().acall(function, worker, **values)

    def callback(self, function: Callable[[Any], Any]) -> Any:
        HostFunction().function = function


if __name__ == "__main__":
    run(PyisolateTensors)
