"""The old protocol: a worker as a subprocess, JSON-RPC 2.0 in lines on its standard input and output.

A tensor goes as ``cpu().numpy()``, pickled, in base64, as a JSON string. The worker keeps descriptor 1 for itself under
another number and points 1 at standard error, as packs print. `python stdout_json.py SCENARIO PARAMETERS`.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from harness import Contender, run
from workload.functions import FUNCTIONS

_KEY = "__tensor__"


def _encoded(value: Any) -> dict[str, str]:
    """What JSON has no form for."""
    if "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor):
        return {_KEY: base64.b64encode(pickle.dumps(value.cpu().numpy(), protocol=5)).decode("ascii")}
    raise TypeError(f"a {type(value).__name__} can't be sent")


def _decoded(value: dict[str, Any]) -> Any:
    if _KEY not in value:
        return value
    import torch

    return torch.from_numpy(pickle.loads(base64.b64decode(value[_KEY])))


def dumps(message: Any) -> str:
    """A message as a line."""
    return json.dumps(message, separators=(",", ":"), default=_encoded) + "\n"


def loads(line: str | bytes) -> Any:
    """What a line says."""
    return json.loads(line, object_hook=_decoded)


class StdoutJson(Contender):
    """One line there, one line back; items of a stream are notifications before the answer."""

    def start(self, workers: int, with_torch: bool) -> None:
        command = [sys.executable, __file__, "worker"]
        pipe = subprocess.PIPE
        self._workers = [subprocess.Popen(command, stdin=pipe, stdout=pipe) for _ in range(workers)]
        self._last = 0

    def stop(self) -> None:
        for each in getattr(self, "_workers", ()):
            each.communicate()

    def call(self, function: str, worker: int = 0, /, **values: Any) -> Any:
        self._send(function, worker, values)
        return self._receive(worker)

    def items(self, count: int) -> Iterator[Any]:
        self._send("items", 0, {"count": count})
        for _ in range(count):
            yield self._receive(0)

    def _send(self, method: str, worker: int, values: dict[str, Any]) -> None:
        self._last += 1
        requests = self._workers[worker].stdin
        assert requests is not None
        requests.write(dumps({"jsonrpc": "2.0", "id": self._last, "method": method, "params": values}).encode())
        requests.flush()

    def _receive(self, worker: int) -> Any:
        answers = self._workers[worker].stdout
        assert answers is not None
        answer = loads(answers.readline())
        if answer["id"] != self._last:
            raise SystemExit("an answer to another call")
        if "error" in answer:
            raise RuntimeError(answer["error"]["message"])
        return answer["result"]

    async def recover(self) -> None:
        """A new worker."""
        self.restart()


def work() -> None:
    """Answers each line with a line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = loads(line)
        try:
            result = FUNCTIONS[request["method"]](**request["params"])
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told
            problem = {"code": -32000, "message": str(error)}
            answers.write(dumps({"jsonrpc": "2.0", "id": request["id"], "error": problem}))
        else:
            for each in result if isinstance(result, Iterator) else (result,):
                answers.write(dumps({"jsonrpc": "2.0", "id": request["id"], "result": each}))
                answers.flush()
        answers.flush()


if __name__ == "__main__":
    work() if sys.argv[1] == "worker" else run(StdoutJson)
