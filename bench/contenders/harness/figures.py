"""What was measured, with its unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One number.

    Attributes:
        of: what was done: a payload, a size, a number of callers.
        statistic: which number of it: ``p50``, ``p99``, ``calls``, ``CPU of the worker`` …
        unit: ``µs``, ``ms``, ``s``, ``/s``, ``MiB``, or ``×`` for ratios.
    """

    of: str
    statistic: str
    unit: str
    value: float

    def as_json(self) -> dict[str, Any]:
        """As the benchmark reads it."""
        return {"of": self.of, "statistic": self.statistic, "unit": self.unit, "value": self.value}


def counted(count: int, what: str) -> str:
    """1 task, 8 tasks."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def quantile(sorted_samples: Sequence[float], part: float) -> float:
    """The sample below which so large a part of them lies (nearest rank)."""
    return sorted_samples[min(len(sorted_samples) - 1, int(part * len(sorted_samples)))]


def latencies(of: str, samples: Sequence[float], unit: str, per_second: float) -> list[Figure]:
    """Median and 99th percentile of samples in seconds; ``per_second`` of the unit are a second."""
    in_order = sorted(samples)
    return [
        Figure(of, "p50", unit, quantile(in_order, 0.5) * per_second),
        Figure(of, "p99", unit, quantile(in_order, 0.99) * per_second),
    ]


@dataclass(frozen=True)
class Series:
    """A number over time.

    Attributes:
        points: seconds since the beginning, the number, and what went on, in order.
    """

    of: str
    unit: str
    points: list[tuple[float, float, str]]

    def as_json(self) -> dict[str, Any]:
        """As the benchmark reads it."""
        return {"of": self.of, "unit": self.unit, "points": self.points}
