"""Whom a channel hands what it reads to: who waits for an answer, and its owner for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from comfy_airlock.wire.errors import AirlockError
from comfy_airlock.wire.frame import Body, Frame
from comfy_airlock.wire.incoming import IncomingCall
from comfy_airlock.wire.lead import Waiting

if TYPE_CHECKING:
    from comfy_airlock.wire.channel import Channel


class PendingCall(Protocol):
    """Somebody who waits for an answer. Called on the thread that reads, which must not be kept.

    Attributes:
        was_unsent: the channel ended before anything of the call was sent, and whoever ended it tells of that.
        may_be_sent: sending was interrupted when nobody knew how far it was: what the call carries is not to be taken
            back.
    """

    was_unsent: bool
    may_be_sent: bool

    def answered(self, frame: Frame, /) -> None: ...

    def progressed(self, frame: Frame, /) -> None: ...

    def nested(self, call: IncomingCall, /) -> None:
        """The callee calls back: to be carried out by whoever waits."""

    def failed(self, error: AirlockError, /) -> None: ...


class WaitingThread(PendingCall, Waiting, Protocol):
    """A thread that waits for its answer, and reads for it."""

    def asked(self, channel: Channel, peer: int, number: int, /) -> None:
        """Where the call went, and what it is known by there. Called on the thread itself, if it has no result yet."""


class Owner(Protocol):
    """Whose channel it is. Called on the thread that reads, which must not be kept."""

    def called(self, call: IncomingCall, /) -> None:
        """The other side calls, and not for a call of ours."""

    def laden(self, frame: Frame, /) -> Body:
        """The body of a frame with references, arrays or attachments, as whoever owns those wants it.

        Called before it is handed on.

        Raises:
            AirlockError: it names what the other side can't name. The channel ends.
        """
        ...

    def gave_up(self) -> None:
        """A call was given up whose answer the other side owes, on a direct channel. Called on any thread."""

    def received(self, frame: Frame, /) -> None:
        """A frame of another kind: an event, a release, news of the server's; or what nobody looks at, with references.

        Called on the thread that reads; for a call that was not decoded, on the one that answers it.
        """

    def ended(self, reason: AirlockError, unanswered: list[PendingCall], /) -> None:
        """The channel ended. Comes once, and last; the calls are the owner's to fail."""


def fail_all(unanswered: list[PendingCall], reason: AirlockError) -> None:
    """Fails calls that no answer will come to."""
    for call in unanswered:
        call.failed(reason.fresh())
