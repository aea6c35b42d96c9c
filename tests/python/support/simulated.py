"""A host and its workers in this one process, joined by nothing but bodies that a test carries from one to another."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from comfy_airlock.calls.arrays import Arrays
from comfy_airlock.calls.load import Load
from comfy_airlock.calls.references import References
from comfy_airlock.calls.survey import take_survey, to_wire
from comfy_airlock.calls.waiting import Outcome
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.frame import RESULT, Body, Frame


class Side:
    """One side of a pair of processes: what a :class:`Pair` is to its references, and to a collector."""

    def __init__(self, name: str, entangled: Callable[[], None] = lambda: None) -> None:
        self.name = name
        self.entangled = entangled
        self.references = References(self, reveals=True)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        self.arrays = Arrays(lambda: None)
        self.codec = Codec(references=self.references)
        self.far: Side = self
        self.told: Callable[[Outcome], object] | None = None
        #: Whether the worker answers at once.
        self.is_at_work = False
        self.asked = 0

    def may_discard(self) -> None: ...

    def discard(self, number: int, receipts: int) -> None:
        self.far.references.release(number, receipts)

    def settle(self, _channel: object = None) -> Load | None:
        receipts = self.references.settle()
        return None if receipts is None else Load(self.references, receipts, None)

    def send(self, value: Any) -> bytes:
        """A value on its way to the other side."""
        body = self.codec.encode(value)
        self.references.settle()
        return body

    def receive(self, body: bytes) -> Body:
        """A value that was read, and is still to be decoded."""
        return self.references.hold(body)

    def give(self, value: Any) -> Any:
        """What the other side has of a value."""
        return self.far.codec.decode(self.far.receive(self.send(value)))

    def ask(self, method: str, args: list[Any], told: Callable[[Outcome], object]) -> None:
        assert method == "survey"
        self.asked += 1
        self.told = told
        if not self.is_at_work:
            if args == [True]:
                gc.collect()
            self.answer(to_wire(take_survey([self.far.references])))

    def answer(self, value: Any) -> None:
        """The worker's answer comes."""
        assert self.told is not None
        self.told(Frame(RESULT, 0, 1, self.codec.encode(value)))

    def end(self) -> None:
        """The worker ends, and another begins."""
        self.references.end()
        self.begin()

    def begin(self) -> None:
        """A worker begins, which is the far side."""
        self.far = Side(f"worker {self.name}")
        self.far.far = self


def join(name: str, entangled: Callable[[], None] = lambda: None) -> Side:
    """A host's side of a pair with a worker."""
    host = Side(name, entangled)
    host.begin()
    return host


class Thing:
    """An object of some process."""

    def __init__(self) -> None:
        self.held: list[Any] = []
