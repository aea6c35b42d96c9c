"""Names of events that are Airlock's own, which neither a pack nor its host may use. Twin of ``control.ts``."""

from __future__ import annotations

from typing import Final

from comfy_airlock.wire.errors import BadRequest

_RESERVED_PREFIX: Final = "airlock."

LOG_EVENT: Final = "airlock.log"
"""Log records of a worker's; see PROTOCOL.md, "Events"."""


def check_event_name(name: str) -> str:
    """The name, if it is nobody's yet.

    Raises:
        BadRequest: it is reserved.
    """
    if name.startswith(_RESERVED_PREFIX):
        raise BadRequest(f"the event name {name!r} is reserved", hint=f"choose one without {_RESERVED_PREFIX!r}")
    return name
