"""The call that code runs for: whether its caller still waits, until when, and what calls back to it are made for.

A node asks here whether it was cancelled, and tells how it goes. Belongs to the thread or the task, and to what they
call; a thread that a node starts is at no call.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from comfy_airlock.wire.errors import BadRequest, Cancelled
from comfy_airlock.wire.incoming import IncomingCall

current_call: Final[ContextVar[IncomingCall | None]] = ContextVar("current_call", default=None)
"""The innermost call that this code runs for."""


def cancelled() -> bool:
    """Whether nobody waits any more for what this code computes. Cheap: for the inner loop of a long node.

    What a node computes after that is dropped, and a worker that goes on for 10 s is ended.
    """
    call = current_call.get()
    return call is not None and call.is_cancelled


def check_cancelled() -> None:
    """Raises Cancelled where :func:`cancelled`."""
    if cancelled():
        raise Cancelled("the call was cancelled")


def report_progress(value: float, total: float | None = None, message: str = "") -> None:
    """Tells the caller how far its call is; it hears so by ``on_progress``, or of something newer.

    Args:
        value: what is done, such as a number of steps.
        total: of how much.
        message: in words.

    Raises:
        BadRequest: no call runs here: a thread that a node started is at none.
    """
    call = current_call.get()
    if call is None or call.service is None:
        raise BadRequest("progress was reported where no call runs", hint="report it on the thread that runs the node")
    call.service.report(call, value, total, message)
