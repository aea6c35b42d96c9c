# /// script
# requires-python = ">=3.11"
# dependencies = ["msgpack==1.2.4", "ormsgpack==1.13.1", "msgspec==0.22.0"]
#
# [tool.airlock-bench]
# name = "msgpack, ormsgpack and msgspec"
# scenarios = ["codecs"]
#
# [tool.airlock-bench.contenders]
# msgpack = ["msgpack"]
# ormsgpack = ["ormsgpack"]
# msgspec = ["msgspec"]
# ///
"""One of the msgpack libraries for Python on the values that calls carry.

`python msgpack_codecs.py codecs PARAMETERS LIBRARY` prints microseconds of encoding and decoding, with tuples kept
apart from lists where the library can do that, and what importing it adds to a worker's start.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import timeit
from collections.abc import Callable
from typing import Any

from harness.figures import Figure

TUPLE = 1

VALUES: dict[str, Any] = {
    "an int": ["run", ["Node"], {"value": 42}],
    "a node's arguments": [
        "run",
        ["Node"],
        {"steps": 20, "cfg": 7.5, "sampler": "euler", "seed": 123456789012, "text": "a photo " * 8, "sizes": [1, 2, 3]},
    ],
    "tuples": ["run", ["Node"], {"a": (1, 2, 3), "b": [("x", 1.0), ("y", 2.0)]}],
    "1 MB of bytes": ["run", ["Node"], {"data": b"x" * 1_000_000}],
}


def msgpack_codec() -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    import msgpack

    def extend(value: Any) -> Any:
        if type(value) is tuple:
            return msgpack.ExtType(TUPLE, encode(list(value)))
        raise TypeError(type(value))

    def encode(value: Any) -> bytes:
        encoded: Any = msgpack.packb(value, default=extend, strict_types=True)
        return encoded

    def restore(code: int, data: bytes) -> Any:
        return tuple(decode(data))

    def decode(data: bytes) -> Any:
        return msgpack.unpackb(data, ext_hook=restore, strict_map_key=False)

    return encode, decode


def ormsgpack_codec() -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    import ormsgpack

    option = ormsgpack.OPT_PASSTHROUGH_TUPLE | ormsgpack.OPT_NON_STR_KEYS | ormsgpack.OPT_PASSTHROUGH_SUBCLASS

    def extend(value: Any) -> Any:
        if type(value) is tuple:
            return ormsgpack.Ext(TUPLE, encode(list(value)))
        raise TypeError(type(value))

    def encode(value: Any) -> bytes:
        return ormsgpack.packb(value, default=extend, option=option)

    def restore(code: int, data: bytes) -> Any:
        return tuple(decode(data))

    def decode(data: bytes) -> Any:
        return ormsgpack.unpackb(data, ext_hook=restore, option=ormsgpack.OPT_NON_STR_KEYS)

    return encode, decode


def msgspec_codec() -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    import msgspec

    return msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode


CODECS = {"msgpack": msgpack_codec, "ormsgpack": ormsgpack_codec, "msgspec": msgspec_codec}


def microseconds(function: Callable[[Any], Any], argument: Any, count: int) -> float:
    """The mean of ``count`` runs, the best of three times that."""
    return min(timeit.repeat(lambda: function(argument), repeat=3, number=count)) / count * 1e6


def import_ms(library: str) -> float:
    """Milliseconds, the median of seven interpreters."""
    code = f"import time; t = time.perf_counter(); import {library}; print((time.perf_counter() - t) * 1e3)"
    return statistics.median(float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(7))


def main() -> None:
    """Figures by what was done; those of a value that came back as another say so, and compare with nothing."""
    count, library = json.loads(sys.argv[2])["calls"], sys.argv[3]
    encode, decode = CODECS[library]()
    figures: list[Figure] = []
    for title, value in VALUES.items():
        data = encode(value)
        of = title if repr(decode(data)) == repr(value) else f"{title} (as lists)"
        figures.append(Figure(of, "encode", "µs", microseconds(encode, value, count)))
        figures.append(Figure(of, "decode", "µs", microseconds(decode, data, count)))
    figures.append(Figure("import", "once", "ms", import_ms(library)))
    print(json.dumps([each.as_json() for each in figures]))


if __name__ == "__main__":
    main()
