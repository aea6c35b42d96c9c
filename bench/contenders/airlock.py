"""Airlock: a Python host, a server of its own, and workers with the workload as their pack.

`python airlock.py SCENARIO PARAMETERS [relay]`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from airlock_measurements import MEASUREMENTS
from harness import Contender, run

from comfy_airlock import connect
from comfy_airlock.host.client import Airlock, Pack
from comfy_airlock.wire import connection

_PACK = f"""import sys
sys.path.append({str(Path(__file__).parent)!r})
from workload import NODE_CLASS_MAPPINGS
"""
_HEALTH_SECONDS = 2.5
"""So old is what the server knows of a worker's memory, at most."""
_MANIFEST = """[project]
name = "{name}"
version = "1.0"
[tool.comfy.isolation]
can_isolate = true
share_torch = {share_torch}
"""


class AirlockContender(Contender):
    """Packs and their nodes, as any host calls them."""

    host: Airlock
    packs: list[Pack]

    def __init__(self, how: str = "line") -> None:
        self.is_relayed = how == "relay"
        self._folder = TemporaryDirectory(prefix="airlock-bench-")

    def start(self, workers: int, with_torch: bool) -> None:
        if self.is_relayed:
            # A host that doesn't name the feature gets no line. Users have no reason to want that: there is no option.
            connection._FEATURES = [feature for feature in connection._FEATURES if feature != "line"]
        self.host = connect(name="bench")
        self._with_torch = with_torch
        self.packs = [self._open(number) for number in range(workers)]

    def _open(self, number: int) -> Pack:
        folder = Path(self._folder.name) / f"pack-{number}"
        folder.mkdir(exist_ok=True)
        share_torch = "true" if self._with_torch else "false"
        (folder / "pyproject.toml").write_text(_MANIFEST.format(name=folder.name, share_torch=share_torch))
        (folder / "__init__.py").write_text(_PACK)
        return self.host.open(folder)

    def stop(self) -> None:
        if hasattr(self, "host"):
            self.host.close()
        self._folder.cleanup()

    def call(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        return self.packs[worker].call(function, **values)[0]

    async def acall(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        return (await self.packs[worker].acall(function, **values))[0]

    def items(self, count: int) -> Iterator[Any]:
        return self.call("items", count=count)

    def callback(self, function: Callable[[Any], Any]) -> Any:
        return function

    def share(self, tensor: Any) -> Any:
        return self.host.share(tensor)

    def copied_bytes(self) -> int:
        time.sleep(_HEALTH_SECONDS)
        workers = [worker for pack in self.host.status()["packs"] for worker in pack["workers"]]
        reports = [self.host.memory(), *((worker["health"] or {}).get("memory") for worker in workers)]
        return sum(report.get("copied_bytes", 0) for report in reports if report)

    def restart(self, with_torch: bool = False) -> None:
        self.packs[0].close()
        self.packs[0] = self._open(0)

    async def recover(self) -> None:
        """The next call starts a fresh worker."""

    def variables_for_others(self) -> dict[str, str]:
        return {"AIRLOCK_SOCKET": self.host.socket_path}


if __name__ == "__main__":
    run(AirlockContender, MEASUREMENTS)
