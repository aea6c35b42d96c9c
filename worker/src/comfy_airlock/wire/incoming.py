"""A call that this process is to answer, from the moment that it was read until its answer is on its way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from comfy_airlock.wire.credit import Turn
from comfy_airlock.wire.errors import AirlockError
from comfy_airlock.wire.frame import PROGRESS, Body, Cargo


class Source(Protocol):
    """The channel that a call came over, as the call sees it."""

    is_direct: bool

    def answer(self, call: IncomingCall, kind: int, body: bytes, cargo: Cargo | None = None, /) -> bool: ...

    def answer_plain(self, call: IncomingCall, body: bytes, /) -> object: ...

    def answer_aside(self, call: IncomingCall, kind: int, body: bytes, /) -> None: ...

    def fail_aside(self, call: IncomingCall, body: bytes, /) -> None: ...

    def decoded(self, call: IncomingCall, /) -> None: ...

    def send(
        self, kind: int, peer: int, call: int, body: bytes, *, cargo: Cargo | None = None, turn: Turn | None = None
    ) -> object: ...


class Reporter(Protocol):
    """Who carries a call out, and can tell its caller how it goes."""

    def report(self, call: IncomingCall, value: float, total: float | None, message: str, /) -> None: ...


class IncomingCall:
    """One call.

    Attributes:
        channel: where it came from, and where its answer goes.
        peer: who calls; what a call back to it is addressed to.
        number: the caller's number for it.
        body: method and arguments, encoded; empty once they were decoded.
        size: how many bytes of them count among what waits; 0 where they are few, or decoded.
        until: time of the monotonic clock at which its caller waits no longer; None for ever.
        has_references: whether the body holds references that nobody has begun to decode.
        is_cancelled: whether its caller has given it up.
        is_answered: whether its answer is on its way.
        is_on_loop: whether it is carried out on an event loop, which is not to wait for credit.
        service: who carries it out, once somebody does.
        outer: the call that was under way where this one was begun.
    """

    # No __init__, which C would enter the interpreter for once more: one is made for each call.
    channel: Source
    peer: int
    number: int
    body: Body
    # Defaults of the class: most calls set few of these.
    size = 0
    until: float | None = None
    has_references = False
    is_cancelled = False
    is_answered = False
    is_on_loop = False
    service: Reporter | None = None
    outer: IncomingCall | None = None
    _on_cancel: dict[object, Callable[[], None]] | None = None

    @classmethod
    def of(cls, channel: Source, peer: int, number: int, body: Body) -> IncomingCall:
        """One that has just come."""
        call = cls()
        call.channel = channel
        call.peer = peer
        call.number = number
        call.body = body
        return call

    def expires(self, deadline_ms: int) -> None:
        """Its caller waits no longer than that, from now on."""
        self.until = time.monotonic() + deadline_ms / 1000

    @property
    def line(self) -> object:
        """What is said about it stands behind nothing."""
        return self

    def call_back(self) -> None:
        """It never waits for credit by itself."""

    def cancel(self) -> None:
        """Its caller has given it up. Called on the thread that reads; a second time does nothing."""
        if self.is_cancelled:
            return
        self.is_cancelled = True
        while self._on_cancel:
            # Taken out one by one: whoever gets an action carries it out, here or in on_cancel.
            try:
                _, action = self._on_cancel.popitem()
            except KeyError:
                return  # The last one was taken back in between.
            action()

    def on_cancel(self, token: object, action: Callable[[], None]) -> None:
        """Has ``action`` called once the call is cancelled: at once where it was, else on the thread that reads."""
        if self._on_cancel is None:
            self._on_cancel = {}
        self._on_cancel[token] = action
        # It may have come in between, and looked before the action was there.
        if self.is_cancelled and self._on_cancel.pop(token, None) is not None:
            action()

    def off_cancel(self, token: object) -> None:
        """Takes an action of :meth:`on_cancel` back."""
        if self._on_cancel is not None:
            self._on_cancel.pop(token, None)

    def progress(self, body: bytes, cargo: Cargo | None = None) -> None:
        """Tells the caller how it goes. Where it waits no longer, or a loop would wait for credit, nobody is told."""
        if not self.is_cancelled:
            turn = self if self.is_on_loop else None
            try:
                self.channel.send(PROGRESS, self.peer, self.number, body, cargo=cargo, turn=turn)
            except AirlockError:
                pass
