"""The old protocol: a worker as a subprocess, JSON lines on its stdin and stdout.

`python stdout_json.py calls COUNT`.
"""

import json
import subprocess
import sys
from typing import Any

from latency import latency


def work() -> None:
    """Answers each line with a line."""
    for line in sys.stdin:
        request = json.loads(line)
        answer = {"id": request["id"], "result": request["args"][0]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Echoes the payloads through a worker of its own."""
    worker = subprocess.Popen([sys.executable, __file__, "worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    requests, answers = worker.stdin, worker.stdout
    assert requests is not None
    assert answers is not None
    last = 0

    def call(value: Any) -> Any:
        nonlocal last
        last += 1
        requests.write(json.dumps({"id": last, "method": "echo", "args": [value]}).encode() + b"\n")
        requests.flush()
        answer = json.loads(answers.readline())
        if answer["id"] != last:
            raise SystemExit("an answer to another call")
        return answer["result"]

    print(json.dumps(latency(call, int(sys.argv[2]))))
    requests.close()
    worker.wait()


if __name__ == "__main__":
    work() if sys.argv[1] == "worker" else main()
