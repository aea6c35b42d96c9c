# /// script
# requires-python = ">=3.10"
# dependencies = ["ray==2.60.0", "numpy"]
#
# [tool.airlock-bench]
# name = "Ray 2.60.0"
# scenarios = [
#   "calls", "stream", "inflight", "hosts", "sizes", "chain", "shapes", "images", "footprint", "spawn", "spawn-torch",
#   "idle", "recovery",
# ]
# torch = true
#
# [tool.airlock-bench.contenders]
# "Ray actors" = []
# ///
"""Ray on this machine alone: each worker is an actor, which runs the calls of its methods one after the other.

Its object store keeps tensors, to be mapped and not to be written to: its option for that is on, and imports torch at
once. Streams are its generators, an actor that was killed starts again, and functions are sent by value: none can call
back into the host. `python ray_actors.py SCENARIO PARAMETERS`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import Any

from harness import Contender, run
from harness.memory import available_bytes
from workload.functions import FUNCTIONS


class Worker:
    """An actor; its methods run in its process."""

    def call(self, function: str, **values: Any) -> Any:
        return FUNCTIONS[function](**values)

    def items(self, count: int) -> Iterator[Any]:
        for each in FUNCTIONS["items"](count):  # noqa: UP028 - Ray sends to the generator, which a range can't take
            yield each


class RayActors(Contender):
    """Starts Ray, unless RAY_ADDRESS names one that runs, and actors in it."""

    def start(self, workers: int, with_torch: bool) -> None:
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": str(int(with_torch))}
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex())  # It would write one to the user's home.
        import ray

        self._ray: Any = ray
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False, **self._options())
        actor = ray.remote(max_restarts=-1, max_task_retries=-1)(Worker)
        self._actors = [actor.remote() for _ in range(workers)]

    def _options(self) -> dict[str, Any]:
        if "RAY_ADDRESS" in os.environ:
            return {}
        self._folder = TemporaryDirectory(prefix="ray-")
        return {"_temp_dir": self._folder.name, "object_store_memory": available_bytes() // 2, "num_cpus": 2}

    def stop(self) -> None:
        if hasattr(self, "_ray"):
            self._ray.shutdown()

    def call(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        return self._ray.get(self._actors[worker].call.remote(function, **values))

    async def acall(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        return await self._actors[worker].call.remote(function, **values)

    def items(self, count: int) -> Iterator[Any]:
        stream = self._actors[0].items.options(num_returns="streaming").remote(count)
        return (self._ray.get(each) for each in stream)

    def share(self, tensor: Any) -> Any:
        return self._ray.put(tensor)

    def restart(self, with_torch: bool = False) -> None:
        self._ray.kill(self._actors[0])
        self.start(1, with_torch)

    def variables_for_others(self) -> dict[str, str]:
        return {"RAY_ADDRESS": self._ray.get_runtime_context().gcs_address}

    def processes(self) -> dict[str, list[int]]:
        roles: dict[str, list[int]] = {"host": [], "worker": [], "server": []}
        for role, pids in super().processes().items():
            roles["worker" if role.startswith("ray::Worker") else role if role == "host" else "server"] += pids
        return roles


if __name__ == "__main__":
    run(RayActors)
