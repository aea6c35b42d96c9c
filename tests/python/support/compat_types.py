"""Types of a host's that its workers have not imported until a value of one comes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Mode(Enum):
    FAST = "fast"


@dataclass
class Point:
    x: int
    mode: Mode


class Pair(NamedTuple):
    a: int
    b: Point
