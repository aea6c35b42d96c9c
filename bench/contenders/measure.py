"""Times sequential calls, for every contender alike: warm up, then the median of each payload. Prints one JSON line."""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

#: A small answer, and what ComfyUI passes to a node: a few strings, numbers and a list.
PAYLOADS: dict[str, Any] = {
    "int": 42,
    "node's arguments": {
        "seed": 1234567890,
        "steps": 20,
        "cfg": 7.5,
        "sampler_name": "dpmpp_2m",
        "text": "a cup of coffee on a wooden table, morning light",
        "sigmas": [round(14.6 * 0.8**step, 4) for step in range(20)],
    },
}


def report_latency(call: Callable[[Any], Any], calls: int) -> None:
    """Prints microseconds a call, the median of ``calls`` of each payload."""
    print(json.dumps({name: _median_us(call, payload, calls) for name, payload in PAYLOADS.items()}), flush=True)


def _median_us(call: Callable[[Any], Any], payload: Any, calls: int) -> float:
    if call(payload) != payload:
        raise SystemExit("the echo is not what was sent")
    for _ in range(calls // 5):
        call(payload)
    took = []
    for _ in range(calls):
        start = time.perf_counter_ns()
        call(payload)
        took.append(time.perf_counter_ns() - start)
    return statistics.median(took) / 1000
