"""Reads the golden vectors; ``tests/vectors/README.md`` has their notation."""

from __future__ import annotations

import json
from pathlib import Path
from struct import pack
from typing import Any

import msgpack

from comfy_airlock.wire import extensions

FOLDER = Path(__file__).resolve().parents[2] / "vectors"

_CONTAINERS = {"tuple": extensions.TUPLE, "set": extensions.SET, "frozenset": extensions.FROZENSET}


def load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def unhex(pieces: str | list[list[Any]]) -> bytes:
    """Bytes from hex, or from pieces of hex that repeat."""
    if isinstance(pieces, str):
        return bytes.fromhex(pieces)
    return b"".join(bytes.fromhex(piece) * count for piece, count in pieces)


def build_value(description: Any) -> Any:
    """The Python value described, for what needs no type beyond Python's builtins."""
    if not isinstance(description, dict):
        return description
    ((kind, content),) = description.items()
    if kind in ("int", "float"):
        return {"int": int, "float": float}[kind](content)
    if kind == "bytes":
        return unhex(content)
    if kind == "repeat":
        return (bytes.fromhex(content[0]) * content[1]).decode()
    if kind == "complex":
        return complex(float(content[0]), float(content[1]))
    if kind == "dict":
        return {build_value(key): build_value(item) for key, item in content}
    builders = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
    return builders[kind](build_value(item) for item in content)


def build_msgpack(description: Any) -> bytes:
    """The described value's encoding, put together without the code under test wherever that is possible."""
    packb: Any = msgpack.packb
    data: bytes = packb(_packable(description), strict_types=True)
    return data


def _packable(description: Any) -> Any:
    if not isinstance(description, dict):
        return description
    ((kind, content),) = description.items()
    if kind == "list":
        return [_packable(item) for item in content]
    if kind == "dict":
        return {_packable(key): _packable(item) for key, item in content}
    if kind in _CONTAINERS:
        return _extension(_CONTAINERS[kind], [_packable(item) for item in content])
    if kind == "complex":
        return msgpack.ExtType(extensions.COMPLEX, pack("<dd", *map(float, content)))
    if kind == "array":
        parts = [content["kind"], _packable(content["dtype"]), content["shape"], content["order"]]
        return _extension(extensions.ARRAY, [*parts, unhex(content["data"])])
    if kind == "named":
        return _extension(extensions.NAMED, [content["name"], _packable(content["state"])])
    value = build_value(description)
    if kind == "int" and not -(2**63) <= value < 2**64:
        length = next(size for size in range(1, 1000) if -(2 ** (8 * size - 1)) <= value < 2 ** (8 * size - 1))
        return msgpack.ExtType(extensions.BIGINT, value.to_bytes(length, "big", signed=True))
    return value


def _extension(code: int, items: list[Any]) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb(items, strict_types=True))
