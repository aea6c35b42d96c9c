"""Equality that also asks for the same types, all the way down."""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import Any

from comfy_airlock.wire.registry import Opaque


def same(left: Any, right: Any) -> bool:
    """Whether the two are equal, of the same types in all their parts, and in the same order where order counts."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return (math.isnan(left) and math.isnan(right)) or (left == right and _sign(left) == _sign(right))
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, (dict, OrderedDict)):
        return (
            all(map(same, left.keys(), right.keys()))
            and len(left) == len(right)
            and all(map(same, left.values(), right.values()))
        )
    if isinstance(left, (set, frozenset)):
        return len(left) == len(right) and all(any(same(item, other) for other in right) for item in left)
    if isinstance(left, Decimal):
        return left.as_tuple() == right.as_tuple()
    if isinstance(left, slice):
        return same((left.start, left.stop, left.step), (right.start, right.stop, right.step))
    if isinstance(left, Opaque):
        return left.name == right.name and same(left.state, right.state)
    if isinstance(left, BaseException):
        return same(left.args, right.args)
    if is_dataclass(left) and not isinstance(left, type):
        return all(same(getattr(left, each.name), getattr(right, each.name)) for each in fields(left))
    return _same_array(left, right)


def _sign(value: float) -> float:
    return math.copysign(1.0, value)


def _same_array(left: Any, right: Any) -> bool:
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None and isinstance(left, (numpy.ndarray, numpy.generic)):
        if left.dtype != right.dtype or left.shape != right.shape:
            return False
        if left.dtype.names:
            # The bytes between a structure's fields are nobody's.
            return all(_same_array(left[name], right[name]) for name in left.dtype.names)
        return left.tobytes() == right.tobytes()
    if torch is not None and isinstance(left, torch.Tensor):
        if left.dtype != right.dtype or left.shape != right.shape:
            return False
        return bytes(left.contiguous().reshape(-1).view(torch.uint8).tolist()) == bytes(
            right.contiguous().reshape(-1).view(torch.uint8).tolist()
        )
    return bool(left == right)
