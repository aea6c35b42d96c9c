"""Airlock: a Python host, a server of its own, and a worker with the probe pack. `python airlock.py CALLS PACK`."""

import sys

from measure import report

from comfy_airlock import connect


def main() -> None:
    """Echoes the payloads through a node."""
    with connect(name="bench") as host:
        pack = host.open(sys.argv[2])
        report(lambda value: pack.call("Echo", value=value)[0], int(sys.argv[1]))


if __name__ == "__main__":
    main()
