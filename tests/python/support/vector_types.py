"""Classes that the golden vectors name: both ends of the wire must have loaded them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, Flag
from typing import NamedTuple


class Colour(Enum):
    RED = 1
    BLUE = 2


class Access(Flag):
    READ = 1
    WRITE = 2


@dataclass
class Point:
    x: int
    y: float


class Size(NamedTuple):
    width: int
    height: int
