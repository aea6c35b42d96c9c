# /// script
# requires-python = ">=3.10"
# dependencies = ["comfy-env==0.4.46", "numpy"]
#
# [tool.airlock-bench]
# name = "comfy-env 0.4.46"
# scenarios = [
#   "calls", "inflight", "hosts", "sizes", "chain", "shapes", "images", "footprint", "spawn", "spawn-torch", "idle",
#   "recovery",
# ]
# torch = true
#
# [tool.airlock-bench.contenders]
# "comfy-env" = []
# ///
"""comfy-env's SubprocessWorker, by its docstrings: functions of a module in a folder, called by their names.

Its public API needs a ComfyUI and environments of pixi's; this is the class below it, in this Python. A tensor goes
through shared memory of torch's, a command as JSON through a Unix socket. Callers wait for a lock: one call at a
time is under way. Nothing streams, and callbacks are for its budgets and progress. A worker imports torch at once.
Who finds one dead makes another, as its pool does. `python comfy_env_worker.py SCENARIO PARAMETERS`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from comfy_env.isolation.workers import SubprocessWorker
from harness import Contender, run


class ComfyEnvWorker(Contender):
    """Workers that have this folder in their path."""

    def __init__(self) -> None:
        # comfy-env would import it while it starts a worker; in a host of ComfyUI's it is there.
        import_module("torch")
        self._workers: list[SubprocessWorker] = []

    def start(self, workers: int, with_torch: bool) -> None:
        self._workers = [SubprocessWorker(sys.executable, Path(__file__).parent) for _ in range(workers)]

    def stop(self) -> None:
        for each in self._workers:
            each.shutdown()

    def call(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        return self._workers[worker].call_module("workload.functions", function, **values)

    async def recover(self) -> None:
        """Another worker."""
        self.restart()


if __name__ == "__main__":
    run(ComfyEnvWorker)
