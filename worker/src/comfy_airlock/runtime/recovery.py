"""The state of a pack's nodes across the end of its worker, where the pack offers that.

A pack whose ``__init__.py`` has ``airlock_checkpoint()`` and ``airlock_restore(state)`` is asked for its state after
each call, and given the last one before the first call of the next worker. The server keeps it meanwhile, as bytes.
Invariant: what is kept is a state between two calls; one that can't be had, or sent, leaves the one before in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from comfy_airlock.runtime.node_pack import NodePack
from comfy_airlock.wire.codec import Codec
from comfy_airlock.wire.optional import standard

CHECKPOINT: Final = "checkpoint"
"""The event by which the server is handed a state."""


class Recovery:
    """Asks one pack for its state, and hands it back."""

    def __init__(self, pack: NodePack, codec: Codec, send: Callable[[bytes], object]) -> None:
        """
        Args:
            codec: for the state: objects do not cross by reference here, as they would end with this process.
            send: hands an event's body to the server.
        """
        self._pack = pack
        self._codec = codec
        self._send = send
        self._last = b""
        self._complaint = ""

    @property
    def is_offered(self) -> bool:
        """Whether the pack has both functions. It is imported by the first call, and offers nothing before."""
        return self._function("checkpoint") is not None and self._function("restore") is not None

    def _function(self, name: str) -> Callable[..., Any] | None:
        function = getattr(self._pack.module, f"airlock_{name}", None)
        return function if callable(function) else None

    def keep(self) -> None:
        """Has the server keep the state as it is now. Called between calls, on the thread that runs them."""
        checkpoint = self._function("checkpoint")
        if checkpoint is None:
            return
        try:
            body = self._codec.encode([CHECKPOINT, checkpoint()])
            if body != self._last:
                self._send(body)
                self._last = body
            self._complaint = ""
        except Exception as error:  # noqa: BLE001 - it is the pack's code; the call that it follows went well.
            complaint = f"{type(error).__name__}: {error}"
            if complaint != self._complaint:
                said = "pack %s: its state is not kept, the one before stays"
                standard("logging").getLogger("comfy_airlock").exception(said, self._pack.name)
            self._complaint = complaint

    def restore(self, state: Any) -> None:
        """Hands a state back, before any call.

        Raises:
            Exception: whatever the pack raises.
        """
        self._pack.load()
        restore = self._function("restore")
        if restore is not None:
            restore(state)
