"""A call that neither a thread nor a coroutine waits for: whoever reads tells its outcome. Ends exactly once."""

from __future__ import annotations

from collections.abc import Callable

from comfy_airlock.calls.waiting import Outcome
from comfy_airlock.wire.channel import Channel
from comfy_airlock.wire.errors import AirlockError
from comfy_airlock.wire.frame import Frame
from comfy_airlock.wire.incoming import IncomingCall


class Question:
    """One call."""

    was_unsent = False
    may_be_sent = False

    def __init__(self, channel: Channel, told: Callable[[Outcome], object]) -> None:
        """
        Args:
            told: is given the frame that answers it, or why none will; on the thread that reads, which must not be
                kept.
        """
        self._channel = channel
        self._told = told

    def ask(self, peer: int, body: bytes) -> None:
        """Makes the call. No thread waits for the answer, so somebody has to read for it."""
        self._channel.lead.attend(self)
        try:
            self._channel.call(self, peer, body)
        except AirlockError as error:
            self.failed(error)

    def progressed(self, frame: Frame) -> None:
        del frame

    def nested(self, call: IncomingCall) -> None:
        """Whoever is asked calls nobody back."""
        call.channel.fail_aside(call, b"\xc0")

    def answered(self, frame: Frame) -> None:
        self._channel.lead.dismiss(self)
        self._told(frame)

    def failed(self, error: AirlockError) -> None:
        self._channel.lead.dismiss(self)
        self._told(error)
