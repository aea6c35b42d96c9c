"""Airlock with tensors: a Python host, a server of its own, and a worker that shares the host's torch.

`python airlock_tensors.py images|again|small COUNT`.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tensors import GIB, image_figures, milliseconds

from comfy_airlock import connect
from comfy_airlock.host.client import Airlock, Pack

_PACK = Path(__file__).parent / "tensor_pack"


def main() -> None:
    """Sends tensors to nodes."""
    scenario, count = sys.argv[1], int(sys.argv[2])
    with connect(name="bench") as host:
        pack = host.open(_PACK)
        pack.call("Nothing")
        if scenario == "images":

            def invert(image: Any) -> Any:
                return pack.call("Invert", image=image)[0]

            def first(tensor: Any) -> float:
                return pack.call("First", tensor=tensor)[0]

            figures = image_figures(invert, first, count)
        elif scenario == "again":
            figures = again(host, pack, count)
        else:
            figures = small(pack, count)
    print(json.dumps(figures))


def again(host: Airlock, pack: Pack, count: int) -> dict[str, float]:
    """What was received, passed on; and what is shared, sent again. In empty calls, in turns with those."""
    figures: dict[str, float] = {}
    for label, size in (("64 KiB", 64 << 10), ("1 MiB", 1 << 20), ("16 MiB", 16 << 20)):
        tensor = torch.ones(size // 4)
        looked_at = pack.call("Echo", value=tensor)[0]
        looked_at.sum()
        sent = {
            "received": pack.call("Echo", value=tensor)[0],
            "received and looked at": looked_at,
            "shared": host.share(tensor),
        }
        empty = milliseconds(lambda: pack.call("Nothing"), count, count // 5)
        for name, each in sent.items():
            took = milliseconds(partial(pack.call, "Take", value=each), count, count // 5)
            figures[f"{label} {name}, ms"] = took
            figures[f"{label} {name}, of an empty call"] = took / empty
    if count > 10:
        received = pack.call("Echo", value=torch.ones(GIB // 4))[0]
        figures["1 GiB received, ms"] = milliseconds(partial(pack.call, "Take", value=received), 9)
        received.sum()
        figures["1 GiB received and looked at, ms"] = milliseconds(partial(pack.call, "Take", value=received), 9)
    return figures


def small(pack: Pack, count: int) -> dict[str, float]:
    """A thousand tensors of 1 KiB in one message, beside the same bytes in one list."""
    tensors = [torch.rand(256) for _ in range(1000)]
    plain = [bytes(1024) for _ in range(1000)]
    took_tensors, took_plain = [], []
    for _ in range(count // 10 + 3):
        took_tensors.append(milliseconds(lambda: pack.call("Take", value=tensors), 1, 0))
        took_plain.append(milliseconds(lambda: pack.call("Take", value=plain), 1, 0))
    mine, theirs = sorted(took_tensors[3:]), sorted(took_plain[3:])
    middle = len(mine) // 2
    return {
        "1,000 tensors of 1 KiB, ms": mine[middle],
        "the same bytes as a list, ms": theirs[middle],
        "tensors, of bytes": mine[middle] / theirs[middle],
    }


if __name__ == "__main__":
    main()
