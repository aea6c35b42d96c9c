"""A host in Python: one node of a pack called, from a thread and from an event loop.

    AIRLOCK_BIN=bin/airlock.mjs python examples/host.py

Joins the server at AIRLOCK_SOCKET, or starts one of its own with the `airlock` command. Needs comfy_airlock (in a
clone, `pip install ./worker`) and numpy.
"""

import asyncio
from pathlib import Path

import numpy

from comfy_airlock import connect

PACK = Path(__file__).parent / "packs" / "inkwork"
GREY = numpy.full((1, 64, 64, 3), 0.5, dtype=numpy.float32)
INPUTS = {"image": GREY, "radius": 4, "colour_range": 0.2, "saturation": 1.2}


def main() -> None:
    with connect() as airlock:
        pack = airlock.open(PACK).options(on_progress=lambda progress: print(progress.message))
        (painted,) = pack.call("FlatPaint", **INPUTS)
        print(f"an image of {painted.shape}, painted in another process")

        async def both() -> None:
            first, second = await asyncio.gather(pack.acall("FlatPaint", **INPUTS), pack.acall("FlatPaint", **INPUTS))
            print(f"and two more, from an event loop: {first[0].shape}, {second[0].shape}")

        asyncio.run(both())


if __name__ == "__main__":
    main()
