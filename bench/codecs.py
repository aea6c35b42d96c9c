"""Which msgpack library the Python side should use: msgpack, ormsgpack and msgspec on the values that calls carry.

Makes an environment of its own with uv, beside the project's, and measures there: encoding and decoding of calls with
tuples kept apart from lists, a large byte string, and the time that an import adds to a worker's start.
"""

from __future__ import annotations

import os
import subprocess
import sys
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBRARIES = ["msgpack==1.2.4", "ormsgpack==1.13.1", "msgspec==0.22.0"]
ROOT = Path(__file__).resolve().parents[1]
TUPLE = 1

VALUES: dict[str, Any] = {
    "an int": ["run", ["Node"], {"value": 42}],
    "a node's arguments": [
        "run",
        ["Node"],
        {"steps": 20, "cfg": 7.5, "sampler": "euler", "seed": 123456789012, "text": "a photo " * 8, "sizes": [1, 2, 3]},
    ],
    "with tuples": ["run", ["Node"], {"a": (1, 2, 3), "b": [("x", 1.0), ("y", 2.0)]}],
    "1 MB of bytes": ["run", ["Node"], {"data": b"x" * 1_000_000}],
}


def msgpack_codec() -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    import msgpack

    def extend(value: Any) -> Any:
        if type(value) is tuple:
            return msgpack.ExtType(TUPLE, encode(list(value)))
        raise TypeError(type(value))

    def encode(value: Any) -> bytes:
        return msgpack.packb(value, default=extend, strict_types=True)

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


def microseconds(function: Callable[[Any], Any], argument: Any) -> float:
    timer = timeit.Timer(lambda: function(argument))
    number, _ = timer.autorange()
    return min(timer.repeat(3, number)) / number * 1e6


def keeps_types(value: Any, back: Any) -> bool:
    return repr(value) == repr(back)


def measure() -> None:
    print(f"{'µs':20}" + "".join(f"{name:>24}" for name in CODECS))
    for title, value in VALUES.items():
        row = f"{title:20}"
        for make in CODECS.values():
            encode, decode = make()
            data = encode(value)
            kept = "" if keeps_types(value, decode(data)) else " loses tuples"
            row += f"{microseconds(encode, value):8.2f} {microseconds(decode, data):7.2f}{kept:8}"
        print(row)
    row = f"{'import, ms':20}"
    for name in CODECS:
        code = f"import time; t = time.perf_counter(); import {name}; print((time.perf_counter() - t) * 1e3)"
        times = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(7)]
        row += f"{sorted(times)[3]:8.2f}{'':16}"
    print(row)


def main() -> None:
    environment = ROOT / ".venvs" / "codecs"
    python = environment / "bin" / "python"
    if not python.exists():
        uv = ROOT / ".venv" / "bin" / "uv"
        subprocess.run([uv, "venv", "--quiet", environment], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *LIBRARIES], check=True)
    os.execv(python, [str(python), __file__, "--measure"])


if __name__ == "__main__":
    measure() if "--measure" in sys.argv else main()
